"""What a run costs, counted instead of timed: the same on every machine, so nothing slips back unseen.

A ceiling is what was counted when it was set. Each has a planted slip beside it, which it notices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import (
    LIBRARIES,
    MAX_LENGTH,
    Counts,
    Library,
    counted_steps,
    posts,
    products_of,
    trained,
)
from torch import nn

import peftune
from peftune.data.tokens import RightPadding, tokenize_rows
from peftune.models.tokenizer import load_tokenizer
from peftune.strategies import Strategy
from peftune.training import regularization, train

STRATEGIES: dict[str, Strategy] = {
    "full": peftune.Full(),
    "lora": peftune.LoRA(),
    "lora-8bit": peftune.LoRA8bit(),
}
BUNDLED = "bundled:tiny-gpt2"

MOST_PADDING = {4: 1.07, 32: 1.14}
"""Tokens that go through the backbone in an epoch, over those of the rows, by rows of a batch."""

MOST_EVALUATED = {4: 1.13, 32: 1.60}
"""The same of an evaluation; of 150 rows few are alike, so that large batches pad more."""

MOST_SAVED = {"full": 57_000, "lora": 62_000, "lora-8bit": 62_000}
"""Bytes that a step of the bundled base keeps for its backward pass, for each token of its batch."""

MOST_OPERATORS: dict[Library, dict[str, int]] = {
    "mkl": {"full": 525, "lora": 775, "lora-8bit": 870},
    "onednn": {"full": 557, "lora": 775, "lora-8bit": 870},
    "torch": {"full": 541, "lora": 800, "lora-8bit": 910},
}
"""Operators of torch in a step of the bundled base on a CPU: forward, backward, clipping and the
optimizer, by the library that the processor takes its products with. Its activation takes seven
quick ones for a slow one."""


@pytest.fixture(scope="module")
def real(tiny_base: Path) -> dict[str, int]:
    """Count the tokens of an epoch, and of an evaluation: the validation rows and as many others."""
    task, tokenizer = posts(), load_tokenizer(tiny_base)
    train_lengths, others = (
        tokenize_rows(rows, tokenizer, max_length=MAX_LENGTH).dataset["length"][:]
        for rows in (task.train, task.validation)
    )
    mean = sum(train_lengths) / len(train_lengths)
    return {"training": sum(train_lengths), "evaluation": round(sum(others) + mean * len(others))}


def _epoch(base: Path, folder: Path, rows: int) -> Counts:
    counts, _, _ = trained(
        base,
        peftune.HeadOnly(),
        folder,
        num_train_epochs=1,
        per_device_train_batch_size=rows,
        per_device_eval_batch_size=rows,
    )
    return counts


def _padding(counts: Counts, real: dict[str, int]) -> dict[str, float]:
    return {name: counts.tokens[name] / count for name, count in real.items()}


@pytest.mark.parametrize("rows", [4, 32])
def test_little_but_the_tokens_of_the_rows_is_computed(
    rows: int, real: dict[str, int], tiny_base: Path, tmp_path: Path
) -> None:
    """Texts of like length share a batch; an evaluation reads its rows once."""
    counts = _epoch(tiny_base, tmp_path, rows)

    padding = _padding(counts, real)
    assert 1.0 <= padding["training"] < MOST_PADDING[rows]
    assert 1.0 < padding["evaluation"] < MOST_EVALUATED[rows]
    assert counts.evaluations == 2  # the validation rows, and the sample of training rows


def test_padding_to_the_longest_text_allowed_is_noticed(
    real: dict[str, int], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slip: every row as long as the limit."""
    stock = RightPadding.__call__

    def to_the_limit(self: RightPadding, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
        batch = stock(self, rows)
        missing = MAX_LENGTH - batch["input_ids"].shape[1]
        for name, value in (("input_ids", self.pad_token_id), ("attention_mask", 0)):
            batch[name] = nn.functional.pad(batch[name], (0, missing), value=value)
        return batch

    monkeypatch.setattr(RightPadding, "__call__", to_the_limit)

    padding = _padding(_epoch(tiny_base, tmp_path, 32), real)

    assert padding["training"] > MOST_PADDING[32]
    assert padding["evaluation"] > MOST_EVALUATED[32]


@dataclass(frozen=True, slots=True)
class Steps:
    """What was counted in steps of one strategy, with one library's products."""

    strategy: str
    library: Library
    counts: Counts


@pytest.fixture(
    scope="module",
    params=[(library, name) for library in LIBRARIES for name in STRATEGIES],
    ids="-".join,
)
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """Take steps of eight posts on the bundled base, as each kind of processor does."""
    library, name = request.param
    with products_of(library):
        counts = counted_steps(BUNDLED, STRATEGIES[name], tmp_path_factory.mktemp("steps"))
    return Steps(name, library, counts)


@pytest.mark.costly
def test_a_step_keeps_few_activations(steps: Steps) -> None:
    """What is kept for the backward pass is most of the memory of a training."""
    name, counts = steps.strategy, steps.counts
    assert 0.5 * MOST_SAVED[name] < counts.saved_bytes / counts.last_tokens <= MOST_SAVED[name]


def test_a_step_calls_few_operators(steps: Steps) -> None:
    """On a GPU, and for a small model on any device, their number is the time of a step."""
    most = MOST_OPERATORS[steps.library][steps.strategy]
    assert 0.5 * most < steps.counts.operators <= most


def test_no_step_walks_through_the_model(steps: Steps) -> None:
    """The first step finds the model's parts, and no other looks for them."""
    assert steps.counts.walked == [0] * 5


@pytest.mark.costly
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_forward_of_transformers_is_noticed(
    name: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slip: a model that is trained by its own forward keeps more, and calls more."""
    monkeypatch.setattr(train, "fast_forward", lambda *_, **__: contextlib.nullcontext())

    with products_of(library):
        counts = counted_steps(BUNDLED, STRATEGIES[name], tmp_path, steps=1)

    assert counts.saved_bytes / counts.last_tokens > MOST_SAVED[name]
    assert counts.operators > MOST_OPERATORS[library][name]


def test_the_walks_of_transformers_trainer_are_noticed(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slip: every step of a model without its answers at hand goes through all modules."""
    monkeypatch.setattr(regularization, "walked_once", lambda _: contextlib.nullcontext())

    counts = counted_steps(tiny_base, peftune.LoRA(), tmp_path, steps=2)

    assert min(counts.walked) > 100
