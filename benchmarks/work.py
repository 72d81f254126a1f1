"""The work that every contender is given, as the arguments of the jobs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.contenders.setup import Setup
from benchmarks.plan import Entry
from benchmarks.rows import MAX_LENGTH, bundled_rows, read_rows, write_rows
from benchmarks.settings import FIRST_ROUNDS, Settings
from benchmarks.shapes import Base
from peftune.bundled import MODELS, bundled_folder

GATE_BATCH = 4
_TUTORIAL_WARM_UP = 1
_TUTORIAL_SHARE = 16
_RATES = {"full": 5.0e-4, "lora": 2.0e-3, "lora-8bit": 2.0e-3}
"""Learning rates for the bundled base and a few hundred steps; real GPT-2s want about a tenth."""

ACCURACY_BATCH = 16


@dataclass(frozen=True, slots=True)
class Work:
    """One run's rows and base.

    Args:
        settings: what is measured.
        base: on what.
        rows: JSON lines of the rows to learn.
        lengths: tokens of each of them.
    """

    settings: Settings
    base: Base
    rows: Path
    lengths: tuple[int, ...]

    def tokens(self, batch: int, steps: int | None = None) -> int:
        """Count the real tokens of a pass over the rows that a batch size learns."""
        count = batch * (self.settings.sizes.of_batch(batch)[0] if steps is None else steps)
        return sum(islice(cycle(self.lengths), count))

    def tokens_of_step(self, batch: int) -> int:
        """Return the real tokens of a mean step."""
        return round(self.tokens(batch) / self.settings.sizes.of_batch(batch)[0])

    def setup(self, strategy: str, batch: int, **further: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of Setup
        """Return the fields of a setup on this base."""
        made = Setup(
            strategy=strategy,
            batch=batch,
            base=str(self.base.folder.resolve()),
            rows=str(self.rows.resolve()),
            device=self.settings.device,
            **further,
        )
        return dataclasses.asdict(made)

    def speed(self, entry: Entry, *, number: int, precision: str) -> dict[str, Any]:
        """Return what the job `speed` takes.

        One pass over the rows counts, so that short and long texts do; as many steps as go before
        it are taken once more in its place at the end.

        Args:
            entry: who, and at what.
            number: of the round: artifacts are saved in the first, texts classified in the first ones.
            precision: `fp32` or `bf16`, for a contender that leaves the choice open.
        """
        sizes, batch = self.settings.sizes, entry.batch
        tutorial = entry.contender == "T"
        steps, warm_up = sizes.of_batch(batch)
        if tutorial:
            steps, warm_up = sizes.tutorial, _TUTORIAL_WARM_UP
        classifies = batch == self.settings.batches[0] and number < FIRST_ROUNDS
        texts = sizes.texts // _TUTORIAL_SHARE if tutorial else sizes.texts
        return {
            "name": entry.contender,
            "setup": self.setup(
                entry.strategy,
                batch,
                count=steps * batch,
                steps=steps + warm_up,
                precision=precision,
            ),
            "warm_up": warm_up,
            "tokens": self.tokens(batch, steps),
            "texts": self.texts(texts) if classifies else [],
            "save": number == 0,
        }

    def texts(self, count: int) -> list[str]:
        """Return texts to classify: the last of the rows, or of the bundled test rows."""
        rows = bundled_rows("test") if self.settings.rows is None else read_rows(self.rows)
        return [row.text for row in rows[-count:]]

    def rates(self) -> dict[str, Any]:
        """Return what the job `rates` takes."""
        settings, shape = self.settings, self.base.shape
        return {
            "layers": shape.layers,
            "width": shape.width,
            "tokens": sorted({self.tokens_of_step(batch) for batch in settings.batches}),
            "weight_gradients": "full" in settings.strategies,
            "device": settings.device,
            "seconds": settings.sizes.product_seconds,
        }

    def gates(self, strategy: str) -> dict[str, Any]:
        """Return what the job `gates` takes."""
        steps = 3
        return {
            "setup": self.setup(strategy, GATE_BATCH, count=steps * GATE_BATCH, steps=steps),
            "without_dropout": str(self.base.without_dropout.resolve()),
            "texts": self.texts(16),
            "trained_steps": steps,
        }

    def forgetting(self) -> dict[str, Any]:
        """Return what the job `forgetting` takes."""
        return {
            "base": str(self.base.folder.resolve()),
            "documents": self.settings.sizes.documents,
            "longest": min(2 * MAX_LENGTH, self.base.shape.positions) - 1,
            "device": self.settings.device,
        }

    def accuracy(self, name: str, strategy: str) -> dict[str, Any]:
        """Return what the job `accuracy` takes: the bundled base and posts, whatever the shape."""
        sizes, folder = self.settings.sizes, self.settings.work
        split = {
            name: str(write_rows(bundled_rows(name), folder / f"posts-{name}.jsonl").resolve())
            for name in ("train", "validation", "test")
        }
        rows = bundled_rows("train")
        setup = Setup(
            strategy=strategy,
            batch=ACCURACY_BATCH,
            base=str(bundled_folder("bundled:tiny-gpt2", among=MODELS)),
            rows=split["train"],
            count=len(rows),
            steps=sizes.accuracy_steps,
            learning_rate=_RATES[strategy],
            device=self.settings.device,
            validation=split["validation"],
            eval_every=sizes.eval_every,
        )
        seeds = sizes.seeds[:1] if name == "T" else sizes.seeds
        return {
            "name": name,
            "setup": dataclasses.asdict(setup),
            "seeds": list(seeds),
            "test": split["test"],
        }


def precision_key(entry: Entry) -> str:
    """Name the choice of a hand-tuned contender's precision; its variants share it."""
    return f"{entry.contender.partition('-')[0]} {entry.strategy} {entry.batch}"
