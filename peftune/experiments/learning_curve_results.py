"""What a learning curve over data size says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftune.display import Block, Displayed, data_frame
from peftune.stats.crossed import FEWEST_SEEDS
from peftune.stats.formats import with_interval
from peftune.stats.intervals import Interval
from peftune.stats.power_law import PowerLaw

if TYPE_CHECKING:
    import pandas as pd

Worth = Literal["yes", "no", "cannot tell"]

WORTHWHILE = 0.005
"""Half a point of accuracy: a doubling that surely gives less is called not worth it."""


@dataclass(frozen=True, slots=True)
class Size:
    """What was learned from so many rows.

    Args:
        rows: training rows.
        errors: share of wrong validation rows, one a seed.
        error: their mean.
        ci95: 95% interval of the error, over rows, and over seeds where there are three or more;
            None with two.
        gain: by how much the error is lower than with the rows of the size before; None for the
            first.
        gain_ci95: 95% interval of the gain, paired by row.
        seconds: training time of all seeds; None where a training was resumed.
    """

    rows: int
    errors: Sequence[float]
    error: float
    ci95: Interval | None
    gain: float | None
    gain_ci95: Interval | None
    seconds: float | None


@dataclass(frozen=True, slots=True, repr=False)
class LearningCurve(Displayed):
    """The error by the number of training rows.

    Args:
        folder: where everything lies.
        name: the recipe's name.
        strategy: name of the strategy.
        validation_rows: rows that were scored; no test row was read.
        seeds: seeds of the trainings.
        sizes: ascending, the last with all rows.
        law: fitted to the errors; None where no fit was found.
        gain_ci95: 95% interval of what doubling the rows would give, by the law.
        worth: whether more data is worth it.
        answer: the same in one sentence, with numbers.
    """

    folder: Path
    name: str
    strategy: str
    validation_rows: int
    seeds: Sequence[int]
    sizes: Sequence[Size]
    law: PowerLaw | None
    gain_ci95: Interval | None
    worth: Worth
    answer: str

    def _blocks(self) -> Iterator[Block]:
        yield f"Learning curve of {self.strategy} in {self.folder}"
        yield curve_rows(self)
        yield self.answer

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a number of training rows."""
        return data_frame(dataclasses.asdict(size) for size in self.sizes)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `learning-curve.json`."""
        values = dataclasses.asdict(self)
        del values["folder"]
        return values


def answer_of(
    law: PowerLaw | None, interval: Interval | None, *, rows: int, seeds: int
) -> tuple[Worth, str]:
    """Say whether more data is worth it.

    Args:
        law: fitted to the errors.
        interval: of the gain of doubling.
        rows: all training rows.
        seeds: how many trainings there were of each size.
    """
    question = "Is more data worth it?"
    if law is None or interval is None:
        return (
            "cannot tell",
            f"{question} Cannot tell: no power law fits the errors. Take more sizes or seeds.",
        )
    low, high = interval
    gain = f"by the fitted law, doubling the {rows} rows lowers the error from {law.error_with(rows):.3f} to {law.error_with(2 * rows):.3f}, a gain of {law.gain_of_doubling:.3f} [{low:.3f}, {high:.3f}]"
    alone = " The interval is one over validation rows; another seed may give another." * (
        seeds < FEWEST_SEEDS
    )
    if low >= WORTHWHILE:
        return "yes", f"{question} Yes: {gain}.{alone}"
    if high < WORTHWHILE:
        return "no", f"{question} No: {gain}, less than half a point of accuracy.{alone}"
    return (
        "cannot tell",
        f"{question} Cannot tell: {gain}. More validation rows or more seeds would tell.{alone}",
    )


LEGEND = "Error: share of wrong validation rows; no test row is read. Brackets: 95% intervals; in parentheses each of two seeds, which have none. Gain: less error than with the rows of the line above."


def curve_rows(curve: LearningCurve) -> list[dict[str, str]]:
    """One row a number of training rows."""
    return [
        {
            "rows": str(size.rows),
            "error": with_interval(size.error, size.ci95, ".3f") + _each(size),
            "gain": with_interval(size.gain, size.gain_ci95, "+.3f"),
            "seconds": "-" if size.seconds is None else f"{size.seconds:.0f}",
        }
        for size in curve.sizes
    ]


def _each(size: Size) -> str:
    """Give the errors of two seeds, of which no interval is made."""
    two = len(size.errors) > 1 and size.ci95 is None
    return f" ({', '.join(f'{error:.3f}' for error in size.errors)})" if two else ""
