"""What it costs to measure forgetting: peftune's pass, and two plain passes over all logits."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

import peftune
from benchmarks.contenders.setup import ALPHA, RANK, TARGET
from benchmarks.contenders.stock import tokenizer_of
from benchmarks.rows import LABELS
from peftune.data.documents import load_documents
from peftune.forgetting.before_and_after import measure_before, measure_tuned
from peftune.forgetting.measurement import ProbeText, measure_plainly
from peftune.models.architecture import backbone_of, trainable_parameters

_BATCH = 16
"""Documents in one plain pass, as in the metric `perplexity` of the library `evaluate`."""

AGREEMENT = 1.0e-4
"""Relative difference of a document's nats at most."""


def run(base: str, *, documents: int, longest: int, device: str) -> dict[str, Any]:
    """Measure the same documents both ways, and compare what they say.

    Args:
        base: folder of the base.
        documents: how many of the bundled general text.
        longest: tokens of a document at most, so that every token is read with all before it.
        device: `cpu` or `cuda`.
    """
    tokenizer = tokenizer_of(base)
    probe = peftune.probes.LanguageModelLoss(dataset_name="bundled:general-text")
    fitting = [
        document
        for document in load_documents(probe)
        if len(tokenizer(document)["input_ids"]) < longest
    ]
    texts = [ProbeText(probe, tuple(fitting[:documents]))]
    model = _tuned(base, device)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as cache:
        os.environ["PEFTUNE_CACHE"] = cache
        before, first = _timed(lambda: measure_before(model, texts))
        before, cached = _timed(lambda: measure_before(model, texts))
        measured, after = _timed(lambda: measure_tuned(model, texts, before))
        alone, point = _timed(lambda: measure_plainly(model, tokenizer, texts))
    model.eval()
    plain, naive = _timed(lambda: _plainly(model, tokenizer, texts[0].documents, device))
    own = np.stack([measured.before.measured[0].total, measured.after[0].total]) * math.log(2)
    again = alone[0].total * math.log(2)
    difference = float(
        max((np.abs(own - plain) / plain).max(), (np.abs(again - plain[1]) / plain[1]).max())
    )
    return {
        "documents": len(texts[0].documents),
        "tokens": int(before.measured[0].tokens.sum()),
        "base_seconds": first,
        "cached_base_seconds": cached,
        "tuned_seconds": after,
        "tuned_alone_seconds": point,
        "naive_seconds": naive,
        "difference": difference,
        "agrees": difference < AGREEMENT,
    }


def _tuned(base: str, device: str) -> nn.Module:
    """Prepare a LoRA whose every weight has moved."""
    strategy = peftune.LoRA(r=RANK, lora_alpha=ALPHA, target_modules=(TARGET,))
    model, _ = peftune.prepare(base, strategy=strategy, labels=LABELS, use_cpu=device == "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.02 * torch.randn_like(weight))
    return model


def _plainly(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], device: str
) -> NDArray[np.float64]:
    """Read all documents with the base and with the tuned model, all logits at once: (2, documents)."""
    if not isinstance(model, PeftModel):
        message = f"a {type(model).__name__} has no adapter to switch off"
        raise TypeError(message)
    found = []
    for reading in (model.disable_adapter(), nullcontext()):
        with reading:
            found.append(_nats(model, tokenizer, documents, device))
    return np.array(found)


@torch.inference_mode()
def _nats(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str], device: str
) -> list[float]:
    backbone, start = backbone_of(model), str(tokenizer.eos_token)
    nats: list[float] = []
    for place in range(0, len(documents), _BATCH):
        batch = [start + document for document in documents[place : place + _BATCH]]
        read = tokenizer(batch, padding=True, return_tensors="pt").to(device)
        hidden = backbone(**read, use_cache=False).last_hidden_state  # (batch, time, hidden)
        logits = hidden @ backbone.wte.weight.T  # (batch, time, vocabulary)
        losses = F.cross_entropy(
            logits[:, :-1].transpose(1, 2), read["input_ids"][:, 1:], reduction="none"
        )  # (batch, time - 1)
        nats += (losses * read["attention_mask"][:, 1:]).sum(1).tolist()
    return nats


def _timed(work: Any) -> tuple[Any, float]:  # noqa: ANN401 - what the work returns
    _wait()
    started = time.perf_counter()
    found = work()
    _wait()
    return found, time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
