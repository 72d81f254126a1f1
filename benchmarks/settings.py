"""What is measured, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import CONTENDERS

FLOOR = "F"
STRATEGIES = ("lora", "full", "lora-8bit")
PARTS = ("startup", "precision", "gates", "forgetting", "accuracy", "speed")
"""In the order in which they are measured; `speed` is the one with rounds."""

EVERY_ROUND = ("H", "B", "B+", "P", FLOOR)
"""Who is measured in every round; the tutorial, which is slow, and the variants in the first ones."""
FIRST_ROUNDS = 2
"""In how many rounds the others are measured, and texts classified."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything is done.

    Args:
        steps: optimizer steps that count, at a batch below 16, and from 16 on.
        warm_up: steps before them, likewise.
        tutorial: steps of the tutorial that count; one goes before them.
        pilot: steps in each precision, two going before them; with 0 all is float32.
        texts: that are classified; the tutorial gets a sixteenth of them.
        documents: that forgetting is measured on.
        seeds: of the trainings to an accuracy.
        accuracy_steps: optimizer steps of one of them.
        eval_every: steps between two scores on the way.
        repeats: of a command whose start is timed.
        product_seconds: of one measurement of a product.
    """

    steps: tuple[int, int] = (60, 16)
    warm_up: tuple[int, int] = (8, 2)
    tutorial: int = 1
    pilot: int = 6
    texts: int = 128
    documents: int = 168
    seeds: tuple[int, ...] = (0, 1, 2)
    accuracy_steps: int = 140
    eval_every: int = 20
    repeats: int = 7
    product_seconds: float = 0.03

    def of_batch(self, batch: int) -> tuple[int, int]:
        """Return the steps of a batch size that count, and those before them."""
        large = int(batch >= 16)  # noqa: PLR2004 - the field's own border
        return self.steps[large], self.warm_up[large]


SMALL = Sizes(
    steps=(4, 4),
    warm_up=(1, 1),
    pilot=0,
    texts=32,
    documents=4,
    seeds=(0,),
    accuracy_steps=4,
    eval_every=2,
    repeats=1,
    product_seconds=0.002,
)
"""Enough to see that everything works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run of the benchmark.

    Args:
        shape: a key of `SHAPES`.
        out: file of the result.
        work: folder for bases, rows and logs.
        base: folder of the user's own base; None finds or makes one.
        rows: the user's own rows; None takes the bundled posts.
        rounds: how often everyone is measured.
        strategies: what is compared.
        batches: rows of a step. Beyond the first, `lora` alone is measured unless `every_batch`.
        every_batch: measure every strategy at every batch.
        contenders: who is compared; `F` is the floor.
        parts: what is measured; what `out` holds of others is kept.
        device: `cpu` or `cuda`.
        threads: of every process; 0 leaves the choice to the libraries.
        minutes: no round is begun that would probably end later.
        sizes: how much is done.
    """

    shape: str
    out: Path
    work: Path
    base: Path | None = None
    rows: Path | None = None
    rounds: int = 5
    strategies: Sequence[str] = STRATEGIES
    batches: Sequence[int] = (4, 32)
    every_batch: bool = False
    contenders: Sequence[str] = (*CONTENDERS, FLOOR)
    parts: Sequence[str] = PARTS
    device: str = "cpu"
    threads: int = 0
    minutes: float = 60.0
    sizes: Sizes = Sizes()

    def batches_of(self, strategy: str) -> Sequence[int]:
        """Return the batch sizes that a strategy is measured at."""
        return self.batches if self.every_batch or strategy == "lora" else self.batches[:1]
