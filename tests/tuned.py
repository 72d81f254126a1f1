"""Small prepared models, a few steps of training, and texts to measure them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peftune.forgetting.measurement import ProbeText
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import encode_texts
from peftune.probes import LanguageModelLoss, Measurement
from peftune.recipe.task_type import TaskName
from peftune.strategies import Strategy

LABELS = ("bad", "good")
DOCUMENTS = (
    "A short one.",
    "The committee met on Tuesday, and nobody could say afterwards why it had met at all.",
    "Half a page about bread: flour, water, salt, and a long wait. " * 2,
    "é",
    "Rain again. The river stood at the second step and the ducks walked along the road.",
)
"""Of 2 to 124 bytes, so of 1 to 3 windows of the small base's 64 positions."""

PROBE = LanguageModelLoss(dataset_name="bundled:general-text", max_documents=4)
TEXTS = [ProbeText(PROBE, DOCUMENTS)]


def prepared(base: Path | str, strategy: Strategy) -> nn.Module:
    """Prepare a base for two labels, on the CPU."""
    return prepare_model(str(base), strategy, labels=LABELS, max_length=32, seed=0, use_cpu=True)


def moved(
    base: Path | str,
    strategy: Strategy,
    task: TaskName = "single-label",
    labels: Sequence[str] = ("bad", "so-so", "good"),
) -> nn.Module:
    """Prepare a model, and move every weight that learns, as training would."""
    model = prepare_model(
        str(base), strategy, labels=labels, task=task, max_length=48, use_cpu=True
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def batch(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tokenize two rows of the task: (2, time)."""
    tokenizer = preparation_of(model).tokenizer
    encoded = encode_texts(tokenizer, ["so good", "so bad, so very bad"], max_length=32)
    return dict(tokenizer.pad({"input_ids": encoded}, return_tensors="pt"))


def train(model: nn.Module, steps: int = 2, rate: float = 0.5) -> None:
    """Take steps large enough to move every learning weight far."""
    optimizer = torch.optim.SGD(trainable_parameters(model).values(), lr=rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch(model), labels=torch.tensor([1, 0])).loss.backward()
        optimizer.step()
    optimizer.zero_grad()


def measurement(total: NDArray[np.float64], weight: NDArray[np.float64]) -> Measurement:
    """Make a measurement of given sums, of one token and one word a document."""
    ones = np.ones(len(total))
    return Measurement(total, weight, ones.astype(np.int64), {"words": ones})


def forgetting(before: Sequence[Measurement], after: Sequence[Measurement]) -> float:
    """Set the measurements of one probe against each other, by the formula."""
    [value] = [
        float((a.total - b.total).sum() / b.weight.sum())
        for b, a in zip(before, after, strict=True)
    ]
    return value
