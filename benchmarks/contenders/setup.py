"""What a contender is given, and what it has to be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

RANK = 8
ALPHA = 16
TARGET = "c_attn"
"""Every contender's adapter: r=8, alpha=16, on the attention's projection, no bias."""

Classify = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One piece of work, the same for all contenders.

    Args:
        strategy: `full`, `lora` or `lora-8bit`.
        batch: rows of an optimizer step.
        base: folder of the base.
        rows: JSON lines of the rows to learn.
        count: how many of them; they are repeated where there are fewer.
        steps: optimizer steps.
        learning_rate: at the first step; it falls linearly to zero.
        seed: of rows, adapter and dropout.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`, for a contender that leaves the choice open.
        adapter_dropout: share of inputs dropped before the adapter.
        max_grad_norm: gradients are scaled down to it.
        validation: JSON lines of rows to be scored on the way; None for none.
        eval_every: optimizer steps between two scores.
        log_every_step: log the loss of every step.
    """

    strategy: str
    batch: int
    base: str
    rows: str
    count: int
    steps: int
    learning_rate: float = 2.0e-4
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    adapter_dropout: float = 0.05
    max_grad_norm: float = 1.0
    validation: str | None = None
    eval_every: int | None = None
    log_every_step: bool = False


class Session(ABC):
    """A model that a contender has loaded and is about to train.

    Attributes:
        model: what is trained.
    """

    model: nn.Module

    @abstractmethod
    def train(self, callbacks: Sequence[TrainerCallback]) -> None:
        """Train for the steps of the setup."""

    @abstractmethod
    def classifier(self) -> Classify:
        """Return what says the label ids of texts, with everything loaded that it needs."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what would be shared: the adapter, or the whole checkpoint."""


class Contender(ABC):
    """A way to fine-tune: one class, and an instance for each of its variants.

    Attributes:
        strategies: what it is measured on.
        batch_is_accumulated: it reads one row at a time, so only the smallest batch makes sense.
    """

    strategies: tuple[str, ...]
    batch_is_accumulated: ClassVar[bool] = False

    def absent(self, strategy: str) -> str | None:  # noqa: ARG002 - most do not look
        """Say why it cannot run here; None where it can."""
        return None

    @abstractmethod
    def build(self, setup: Setup) -> Session:
        """Load the base and put the strategy on it."""
