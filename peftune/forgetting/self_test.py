"""Controls that anyone can run on their own machine: does the measurement measure?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import GPT2Model, PreTrainedTokenizerBase

from peftune.forgetting.measurement import ProbeText, adapter_off_forgetting, measure_with
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.base_files import BaseSource
from peftune.models.loading import load_backbone, load_language_model
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.probes import LanguageModelLoss, Measurement

NOISE = (0.0, 0.01, 0.03, 0.1)
"""Scale of planted noise, relative to the root mean square of each weight."""

_DOCUMENTS = 8
_BRUTE_FORCE_TOKENS = 48
_TOLERANCE = 1e-5
"""Nats per token by which a float32 result may depend on what stands beside it in a batch."""


@dataclass(frozen=True, slots=True)
class Check:
    """One control.

    Args:
        name: what must hold.
        passed: whether it does.
        found: what was measured.
    """

    name: str
    passed: bool
    found: str


def self_test(
    source: BaseSource, documents: Sequence[str], *, control: float | None, device: torch.device
) -> list[Check]:
    """Run the controls of the measurement on a base and some documents.

    Args:
        source: the base.
        documents: strings; the first few are used.
        control: forgetting of the artifact with its adapter disabled; None where there is none.
        device: where to measure.

    Returns:
        One check each: zero by identity, adapter disabled, planted noise, batches, order, padding,
        brute force, no trace.
    """
    tokenizer = load_tokenizer(source.folder)
    backbone = load_backbone(source, device)
    chosen = tuple(documents[:_DOCUMENTS])
    checks = [_zero_by_identity(backbone, tokenizer, chosen)]
    if control is not None:
        checks.append(
            Check("adapter disabled is the base, exactly", control == 0.0, f"change {control!r}")
        )
    checks += _batching(backbone, tokenizer, chosen)
    checks.append(_brute_force(source, backbone, tokenizer, chosen))
    checks.append(_no_trace(backbone, tokenizer, chosen))
    checks.append(_planted_noise(source, tokenizer, chosen, device))
    return checks


def _text(documents: Sequence[str]) -> ProbeText:
    return ProbeText(LanguageModelLoss(file="self-test.txt"), tuple(documents))


def _zero_by_identity(
    backbone: GPT2Model, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]
) -> Check:
    scorer = LanguageModelScorer(backbone, tokenizer, reference=lambda: _Itself(backbone))
    probe = _text(documents)
    [before] = measure_with(backbone, tokenizer, [probe])
    after = probe.probe.measure(scorer, probe.documents)
    change = adapter_off_forgetting([before], [after])
    kl = float(_divergences(after).sum())
    found = f"forgetting {change!r} bits per byte, KL {kl!r} nats"
    return Check("an unchanged model forgot nothing, exactly", change == kl == 0.0, found)


def _divergences(measured: Measurement) -> NDArray[np.float64]:
    if measured.kl is None:
        message = "The documents were scored without a reference."
        raise ValueError(message)
    return measured.kl


class _Itself:
    """A reference that is the model itself."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __enter__(self) -> nn.Module:
        return self._model

    def __exit__(self, *_: object) -> None:
        return None


def _batching(
    backbone: GPT2Model, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]
) -> Iterator[Check]:
    plain = LanguageModelScorer(backbone, tokenizer).score_text(documents)
    alone = LanguageModelScorer(backbone, tokenizer, batch_size=1).score_text(documents)
    turned = LanguageModelScorer(backbone, tokenizer).score_text(documents[::-1])
    longest = max(documents, key=len)
    padded = [
        LanguageModelScorer(backbone, tokenizer).score_text([document, longest]).nats[0]
        for document in documents
    ]
    variants = {
        "the batch size does not matter": alone.nats,
        "the order of the documents does not matter": turned.nats[::-1],
        "padding does not matter": np.array(padded),
    }
    for name, nats in variants.items():
        largest = float(np.abs(nats - plain.nats).max() / plain.tokens.min())
        yield Check(name, largest <= _TOLERANCE, f"largest change {largest:.1e} nats per token")


def _brute_force(
    source: BaseSource,
    backbone: GPT2Model,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[str],
) -> Check:
    """Score the first document a token at a time, under transformers' own language model."""
    text = documents[0][: _BRUTE_FORCE_TOKENS * 3]
    [ids] = encode_texts(tokenizer, [text], max_length=None)
    model = load_language_model(source, backbone.wte.weight.device)
    fed = [int(tokenizer.eos_token_id), *ids]
    total = 0.0
    for position, token in enumerate(ids):
        with torch.inference_mode():
            logits = model(torch.tensor([fed[: position + 1]], device=model.device)).logits[0, -1]
        total -= float(torch.log_softmax(logits.double(), -1)[token])
    scored = LanguageModelScorer(backbone, tokenizer).score_text([text])
    change = abs(float(scored.nats[0]) - total) / len(ids)
    passed = change <= _TOLERANCE and int(scored.tokens[0]) == len(ids)
    return Check(
        "one token at a time gives the same",
        passed,
        f"{change:.1e} nats per token apart on {len(ids)} tokens",
    )


def _no_trace(
    backbone: GPT2Model, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]
) -> Check:
    backbone.train()
    random = torch.get_rng_state()
    weights = [weight.detach().clone() for weight in backbone.parameters()]
    LanguageModelScorer(backbone, tokenizer).score_text(documents)
    same = (
        backbone.training
        and torch.equal(random, torch.get_rng_state())
        and all(torch.equal(a, b) for a, b in zip(weights, backbone.parameters(), strict=True))
    )
    backbone.eval()
    found = "mode, random state and weights are as before" if same else "something has changed"
    return Check("measuring leaves no trace", same, found)


def _planted_noise(
    source: BaseSource,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[str],
    device: torch.device,
) -> Check:
    base = load_backbone(source, device)
    probe = _text(documents)
    bits, kl = [], []
    for scale in NOISE:
        noisy = load_backbone(source, device)
        _add_noise(noisy, scale)
        scorer = LanguageModelScorer(noisy, tokenizer, reference=lambda: _Itself(base))
        measured = probe.probe.measure(scorer, probe.documents)
        bits.append(measured.value)
        kl.append(float(_divergences(measured).sum() / measured.tokens.sum()))
    # Little noise may help a few documents by chance; no noise leaves the predictions where they were.
    rising = all(earlier < later for earlier, later in pairwise(kl)) and bits[0] < bits[-1]
    found = ", ".join(f"{value:.4f}" for value in kl[1:])
    change = (
        f"KL {found} nats per token; at the most noise {bits[-1] - bits[0]:+.4f} bits per byte"
    )
    return Check("planted noise shows, and more of it shows more", rising, change)


def _add_noise(backbone: GPT2Model, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in backbone.parameters():
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.add_(scale * weight.square().mean().sqrt() * noise)
