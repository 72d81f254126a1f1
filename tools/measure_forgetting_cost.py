"""Measure what forgetting costs: two plain passes with full logits, against what a run does.

    python tools/measure_forgetting_cost.py BASE [--text FILE] [--strategy lora] [--tokens 4000] [--rounds 3]

BASE is a GPT-2 folder, FILE a probe's text (default: the bundled general text). The naive way is
that of many scripts, and of peft's method_comparison: each window alone through
`GPT2LMHeadModel`, with the adapter and without, float32 logits of every position, cross-entropy.
A run measures the base before training, and afterwards the tuned model beside its base with the
adapter off, with the divergence between them: `cold` measures the base, `warm` finds its scores in
the cache. `point` is a point of a forgetting curve: the tuned model alone, as it is measured at an
evaluation. All read the same tokens and take turns in every round, so that a busy machine slows all;
ratios are medians over the rounds. They must agree to 1e-4 nats per token.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
import transformers
from torch import nn
from transformers import GPT2LMHeadModel

import peftune
from peftune.forgetting import scorer
from peftune.forgetting.before_and_after import measure_before, measure_tuned
from peftune.forgetting.measurement import ProbeText, measure_plainly, read_probe_texts
from peftune.forgetting.scorer import Piece, text_pieces
from peftune.models.architecture import backbone_of, evaluating, trainable_parameters
from peftune.models.prepare import acting_as_base, preparation_of, prepare_model
from peftune.models.tokenizer import encode_texts
from peftune.probes import Measurement
from peftune.strategies import STRATEGIES

AGREE = 1e-4
"""Nats per token by which the ways may differ."""


@dataclass
class Work:
    """What was computed.

    Args:
        seconds: wall clock.
        nats: of a token under the base, and under the tuned model.
        backbone: tokens through the backbone, padding included.
        head: positions at which the output head was applied.
    """

    seconds: float = 0.0
    nats: tuple[float, float] = (math.nan, math.nan)
    backbone: int = 0
    head: int = 0


def main() -> None:
    """Measure, print one JSON line a round and a table; end with 1 where the ways disagree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("--text", default="bundled:general-text")
    parser.add_argument("--strategy", default="lora", choices=("full", "lora", "lora-8bit"))
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    model = tuned_model(arguments.base, arguments.strategy)
    text = shortened(probe_text(arguments.text), model, arguments.tokens)
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append(one_round(model, text))
        print(json.dumps({name: asdict(work) for name, work in rounds[-1].items()}), flush=True)
    table(rounds, tokens=sum(len(piece.targets) for piece in pieces_of(model, text)))
    naive = rounds[0]["naive"].nats
    for name, work in rounds[0].items():
        apart = max(abs(a - b) for a, b in zip(work.nats, naive, strict=True))
        if not apart <= AGREE:
            sys.exit(f"{name} is {apart:.2g} nats per token from the naive way")


def tuned_model(base: str, strategy: str) -> nn.Module:
    """Prepare a model and move what learns at random, as training would."""
    chosen = STRATEGIES.get(strategy)()
    model = prepare_model(base, chosen, labels=("a", "b", "c"), use_cpu=True)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(
                0.02 * weight.std().nan_to_num(1.0).clamp_min(0.1) * torch.randn_like(weight)
            )
    return model


def probe_text(text: str) -> ProbeText:
    """Read a probe's documents."""
    source = {"dataset_name": text} if text.startswith("bundled:") else {"file": text}
    return read_probe_texts([peftune.probes.LanguageModelLoss(**source)])[0]


def shortened(text: ProbeText, model: nn.Module, tokens: int) -> ProbeText:
    """Keep the first documents, as many as have so many tokens."""
    tokenizer = preparation_of(model).tokenizer
    kept: list[Any] = []
    for document in text.documents:
        [ids] = encode_texts(tokenizer, [document], max_length=None)
        tokens -= len(ids)
        kept.append(document)
        if tokens <= 0:
            break
    return ProbeText(text.probe, tuple(kept))


def pieces_of(model: nn.Module, text: ProbeText) -> list[Piece]:
    """Cut the documents into the windows in which peftune reads them."""
    tokenizer, config = preparation_of(model).tokenizer, backbone_of(model).config
    window = min(1024, int(config.n_positions))
    encoded = encode_texts(tokenizer, list(text.documents), max_length=None)
    return list(
        text_pieces(encoded, prefix=int(tokenizer.eos_token_id), window=window, stride=window // 2)
    )


def one_round(model: nn.Module, text: ProbeText) -> dict[str, Work]:
    """Measure in every way once."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PEFTUNE_CACHE"] = cache
        return {
            "naive": counted(model, lambda: naive(model, pieces_of(model, text))),
            "cold": counted(model, lambda: as_a_run(model, text)),
            "warm": counted(model, lambda: as_a_run(model, text)),
            "point": counted(model, lambda: as_a_point(model, text)),
        }


def counted(model: nn.Module, way: Callable[[], tuple[float, float]]) -> Work:
    """Time a way, and count what goes through backbone and head."""
    work = Work()
    with counting(model, work):
        started = time.perf_counter()
        work.nats = way()
        work.seconds = time.perf_counter() - started
    return work


@contextmanager
def counting(model: nn.Module, work: Work) -> Iterator[None]:
    """Count at the token embedding, and where the head is applied."""
    embedding, embed = backbone_of(model).wte, nn.Embedding.forward

    def embedded(module: nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        if module is embedding:
            work.backbone += tokens.numel()
        return embed(module, tokens)

    apply = scorer._log_probabilities  # noqa: SLF001 - there is no other place to count at

    def applied(states: torch.Tensor, *others: Any) -> torch.Tensor:  # noqa: ANN401 - as they are
        work.head += len(states)
        return apply(states, *others)

    with (
        mock.patch.object(nn.Embedding, "forward", embedded),
        mock.patch.object(scorer, "_log_probabilities", applied),
    ):
        yield


def naive(model: nn.Module, pieces: Sequence[Piece]) -> tuple[float, float]:
    """Read every window alone, with full logits: the base, then the tuned model."""
    backbone = backbone_of(model)
    with torch.device("meta"):
        whole = GPT2LMHeadModel(backbone.config)
    whole.transformer, whole.lm_head.weight = backbone, backbone.wte.weight
    with evaluating(model):
        with acting_as_base(model):
            whole.lm_head.weight = nn.Parameter(backbone.wte.weight.data, requires_grad=False)
            base = plain_pass(whole, pieces)
        whole.lm_head.weight = nn.Parameter(backbone.wte.weight.data, requires_grad=False)
        return base, plain_pass(whole, pieces)


def plain_pass(whole: nn.Module, pieces: Sequence[Piece]) -> float:
    """Return nats per token."""
    whole.eval()
    nats, tokens = 0.0, 0
    for piece in pieces:
        logits = whole(torch.tensor([piece.inputs])).logits.float()  # (1, time, vocabulary)
        targets = torch.tensor(piece.targets)
        scored = logits[0, -len(targets) :]
        nats += float(
            nn.functional.cross_entropy(scored, targets, reduction="none").double().sum()
        )
        tokens += len(targets)
    return nats / tokens


def as_a_run(model: nn.Module, text: ProbeText) -> tuple[float, float]:
    """Measure as a run does: before the training with weights that it has not changed, and after."""
    with acting_as_base(model):
        before = measure_before(model, [text])
    measured = measure_tuned(model, [text], before)
    if measured.control != 0.0:
        sys.exit(f"with the adapter off the model is {measured.control} from its base")
    return nats_of(before.measured[0]), nats_of(measured.after[0])


def as_a_point(model: nn.Module, text: ProbeText) -> tuple[float, float]:
    """Measure as `ForgettingCallback` does at an evaluation; the base was measured at the beginning."""
    with acting_as_base(model):
        before = measure_before(model, [text])
    after = measure_plainly(model, preparation_of(model).tokenizer, [text])
    return nats_of(before.measured[0]), nats_of(after[0])


def nats_of(found: Measurement) -> float:
    """Return nats per token."""
    return float(found.total.sum()) * math.log(2) / int(found.tokens.sum())


def table(rounds: Sequence[dict[str, Work]], *, tokens: int) -> None:
    """Print the medians, and what was computed for each token that counts."""
    print(f"\n{tokens} tokens, {len(rounds)} rounds\n")
    print(
        "| way | seconds | naive takes | backbone, per token | head, per token |\n|---|---|---|---|---|"
    )
    for name in rounds[0]:
        seconds = statistics.median(each[name].seconds for each in rounds)
        ratio = statistics.median(each["naive"].seconds / each[name].seconds for each in rounds)
        work = rounds[0][name]
        head = work.backbone if name == "naive" else work.head
        print(
            f"| {name} | {seconds:.2f} | {ratio:.2f} x | {work.backbone / tokens:.2f} | {head / tokens:.2f} |"
        )


if __name__ == "__main__":
    main()
