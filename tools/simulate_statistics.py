"""Simulate what the statistics promise: the tables of docs/statistics.md.

    python tools/simulate_statistics.py --repetitions 2000 --jobs 2 --json statistics.json

A cell draws data whose truth is known, hands it to the functions that a report is made with, and counts how
often they say what is not true. The program ends with 1 if that is more often than promised: by more
than three binomial standard errors and one point.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
from numpy.random import Generator
from simulated_runs import (
    COLLAPSED,
    MARGIN,
    SHAPES,
    Answers,
    Array,
    Documents,
    Losses,
    Paths,
    RightOrWrong,
)
from tqdm import tqdm

from peftune.experiments.compare.matched_accuracy import forgetting_at_matched_accuracy
from peftune.experiments.compare.pairs import adjusted, difference, ties
from peftune.experiments.compare.summary import Difference
from peftune.forgetting.results import assess_change
from peftune.stats.crossed import (
    FEWEST_SEEDS,
    Mean,
    Unit,
    crossed_error,
    crossed_mean,
    crossed_share,
    seed_mean,
)
from peftune.stats.intervals import Interval, ratio_interval, share_change_interval
from peftune.stats.tests import LEVEL

SEED = 0
Events = Mapping[str, bool]
"""What happened in one repetition; the first is what is promised to be rare."""

Estimator = Callable[[Array, Unit], Mean]


@dataclass(frozen=True, slots=True)
class Cell:
    """A promise in one scenario.

    Args:
        promise: what is promised, the heading of its table.
        family: the scenario without what hardly matters: a line of the table.
        detail: the rest of it.
        repeat: one repetition.
        promised: the largest share of repetitions that the first event may have; None where it is
            reported only.
        costly: whether a fourth of the repetitions must do.
    """

    promise: str
    family: str
    detail: str
    repeat: Callable[[Generator], Events]
    promised: float | None = LEVEL
    costly: bool = False

    @property
    def scenario(self) -> str:
        """Name the cell within its promise."""
        return f"{self.family}, {self.detail}" if self.detail else self.family


@dataclass(frozen=True, slots=True)
class Row:
    """What a cell came to.

    Args:
        promise: what is promised.
        family: line of the table.
        scenario: what was simulated.
        promised: largest share; None where there is no promise.
        observed: share of repetitions.
        beside: shares of other events.
        repetitions: how many.
        kept: whether the promise was kept, as far as so many repetitions can tell.
    """

    promise: str
    family: str
    scenario: str
    promised: float | None
    observed: float
    beside: Mapping[str, float]
    repetitions: int
    kept: bool


def simulate(cell: Cell, repetitions: int) -> Row:
    """Repeat a cell; its random numbers depend on its name alone."""
    generator = np.random.default_rng(
        [SEED, zlib.crc32(f"{cell.promise}{cell.scenario}".encode())]
    )
    counts: dict[str, int] = {}
    repetitions = max(1, repetitions // 4) if cell.costly else repetitions
    for _ in range(repetitions):
        for event, happened in cell.repeat(generator).items():
            counts[event] = counts.get(event, 0) + happened
    observed, *beside = (count / repetitions for count in counts.values())
    return Row(
        promise=cell.promise,
        family=cell.family,
        scenario=cell.scenario,
        promised=cell.promised,
        observed=observed,
        beside=dict(zip(list(counts)[1:], beside, strict=True)),
        repetitions=repetitions,
        kept=cell.promised is None or observed <= bound(cell.promised, repetitions),
    )


def bound(promised: float, repetitions: int) -> float:
    """Return what chance and one point let a promise come to; never is never."""
    if promised == 0:
        return 0.0
    return promised + 3 * float(np.sqrt(promised * (1 - promised) / repetitions)) + 0.01


# What is said of it


def tested(values: Array, unit: Unit) -> Mean:
    """Return `crossed_mean` without its interval, which takes longer than its p-value."""
    if len(values) < FEWEST_SEEDS or np.ptp(values) == 0:
        return crossed_mean(values, unit=unit)
    mean = float(values.mean())
    return Mean(mean, None, crossed_error(values).p_value(mean))


def compared(scores: Sequence[Array], unit: Unit, estimator: Estimator) -> list[Difference]:
    """Compare all pairs of strategies as a comparison does."""
    pairs = itertools.combinations(zip(ascii_lowercase, scores, strict=False), 2)
    found = [
        difference("figure", (first, second), estimator(one - other, unit))
        for (first, one), (second, other) in pairs
    ]
    return adjusted(found, {})


def called_different(
    generator: Generator,
    *,
    draw: Callable[[Generator], list[Array]],
    unit: Unit,
    estimator: Estimator = tested,
) -> Events:
    """Say whether any two strategies are called different, by the test or by their letters."""
    scores = draw(generator)
    found = compared(scores, unit, estimator)
    letters = ties(ascii_lowercase[: len(scores)], found).values()
    disjoint = any(not set(one) & set(other) for one, other in itertools.combinations(letters, 2))
    return {"called different": disjoint or any(pair.significant for pair in found)}


def missed(
    generator: Generator,
    *,
    draw: Callable[[Generator], Any],
    interval: Callable[..., Interval | None],
    truth: float,
) -> Events:
    """Say whether an interval misses the truth, and on which side it lies then."""
    low, high = interval(*draw(generator)) or (truth, truth)
    return {"missed": not low <= truth <= high, "too low": high < truth, "too high": low > truth}


def missed_over_seeds(
    generator: Generator,
    *,
    draw: Callable[[Generator], list[Array]],
    unit: Unit,
    truth: float,
    estimator: Estimator = tested,
) -> Events:
    """Say whether the interval of a mean, or of the difference of two, misses the truth.

    It does where a test of the truth rejects it, for interval and p-value are one distribution.
    """
    scores = draw(generator)
    values = scores[0] if len(scores) == 1 else scores[0] - scores[1]
    mean = estimator(values - truth, unit)
    apart = mean.p_value is not None and mean.p_value < LEVEL
    return {"missed": apart, "too low": apart and mean.value < 0, "too high": apart and mean.value > 0}  # fmt: skip


def of_accuracy(right: Array) -> Interval | None:
    """Return the interval of one strategy's accuracy."""
    return crossed_share(right).ci95


def of_seconds(*values: float) -> Interval | None:
    """Return the interval of a figure that every seed has one of."""
    return seed_mean(values).ci95


def said(
    generator: Generator, *, draw: Callable[[Generator], tuple[Array, Array]], word: str
) -> Events:
    """Say whether a verdict is a word."""
    change, weight = draw(generator)
    judged = assess_change(
        np.zeros_like(change), change, weight, margin=MARGIN, right_or_wrong=False, learned=True
    )
    return {"said": judged.verdict == word}


def told_at_matched_accuracy(
    generator: Generator, *, draw: Callable[[Generator], Any], first: str = "any"
) -> Events:
    """Say which of two strategies is called the one that forgets less at matched accuracy."""
    paths = draw(generator)
    found = forgetting_at_matched_accuracy("text", paths, learned=list(paths))
    pair = found.differences[0] if found and found.differences else None
    apart = pair is not None and pair.significant
    nearer = pair is not None and apart and pair.mean > 0
    events = {"any": apart, "the nearer": nearer, "the further": apart and not nearer}
    return {first: events[first], **events}


# The cells


def _by(seeds: int) -> str:
    return f"{seeds} seeds"


def false_forgetting(estimator: Estimator = tested) -> Iterator[Cell]:
    """Equal strategies that forget; with two seeds nothing is said."""
    effects = {"adding": (False, 0.2), "scaling 0.2": (True, 0.2), "scaling 0.4": (True, 0.4)}
    for seeds, (effect, (scales, spread)), shape, documents, count in itertools.product(
        (2, 3, 5), effects.items(), ("normal", "lognormal 1.2"), (60, 10), (2, 3, 4)
    ):
        draw = Losses(seeds, documents, (spread,) * count, (1.0,) * count, shape, scales)
        yield Cell(
            "False differences of forgetting",
            f"{_by(seeds)}, {effect}, {shape} documents",
            f"{count} strategies, {documents} documents",
            partial(called_different, draw=draw, unit="documents", estimator=estimator),
            0.0 if seeds < FEWEST_SEEDS else LEVEL,
        )


SEED_SPREADS = ((0.65, 0.0), (0.65, 0.01), (0.65, 0.03), (0.97, 0.0), (0.97, 0.003), (0.97, 0.01))
"""Accuracies, and their standard deviations over seeds; near 1 there is less room for it."""

FEWEST_WRONG = 5
"""Rows that a strategy gets wrong, from which on the interval of a difference is promised."""


def false_accuracy(estimator: Estimator = tested) -> Iterator[Cell]:
    """Equal strategies that answer rows."""
    for seeds, (accuracy, by_seed), rows, count in itertools.product(
        (3, 5), SEED_SPREADS, (50, 300, 1500), (2, 4)
    ):
        draw = Answers(seeds, rows, (accuracy,) * count, by_seed)
        yield Cell(
            "False differences of accuracy",
            f"{_by(seeds)} that vary by {by_seed}, accuracy {accuracy}",
            f"{count} strategies, {rows} rows",
            partial(called_different, draw=draw, unit="rows", estimator=estimator),
        )


def crossed_intervals(estimator: Estimator = tested) -> Iterator[Cell]:
    """One strategy's forgetting, and the difference of two, of which one forgets twice as much."""
    for seeds, shape, documents, factors in itertools.product(
        (3, 5, 8),
        ("normal", "heavy-tailed (t, 3 degrees)", "lognormal 0.7", "lognormal 1.2"),
        (10, 20, 60, 150),
        ((1.0,), (2.0, 1.0)),
    ):
        draw = Losses(seeds, documents, (0.3,) * len(factors), factors, shape)
        what = "one strategy" if len(factors) == 1 else "a difference"
        yield Cell(
            "Intervals of forgetting over seeds and documents",
            f"{what}, {_by(seeds)}, {shape} documents",
            f"{documents} documents",
            partial(
                missed_over_seeds, draw=draw, unit="documents", truth=MARGIN, estimator=estimator
            ),
            LEVEL if documents >= enough(shape) else None,
        )


def enough(shape: str) -> int:
    """Return from how many documents on the interval is promised, by how unevenly they lose."""
    return ENOUGH[shape]


ENOUGH = {
    "normal": 10,
    "heavy-tailed (t, 3 degrees)": 10,
    "exponential": 59,
    "lognormal 0.7": 59,
    "lognormal 1.2": 400,
    "1 in 20 loses 20 times": 100,
    "1 in 50 loses 20 times": 400,
}


def accuracy_intervals() -> Iterator[Cell]:
    """One strategy's accuracy, and the difference of two; seconds by seed."""
    for seeds, (accuracy, by_seed), rows in itertools.product(
        (3, 5, 8), SEED_SPREADS, (50, 300, 1500)
    ):
        detail = f"{rows} rows, seeds that vary by {by_seed}"
        draw = Answers(seeds, rows, (accuracy,), by_seed)
        yield Cell(
            "Intervals of accuracy over seeds and rows",
            f"one strategy, {_by(seeds)}, accuracy {accuracy}",
            detail,
            partial(missed, draw=draw, interval=of_accuracy, truth=accuracy),
            costly=True,
        )
        draw = dataclasses.replace(draw, accuracies=(accuracy, accuracy - 0.03))
        yield Cell(
            "Intervals of accuracy over seeds and rows",
            f"a difference of 3 points, {_by(seeds)}, accuracy {accuracy}",
            detail,
            partial(missed_over_seeds, draw=draw, unit="rows", truth=0.03),
            LEVEL if rows * (1 - accuracy) >= FEWEST_WRONG else None,
        )


def _seconds(generator: Generator, shape: str, seeds: int) -> Array:
    return SHAPES[shape](generator, seeds)


def seed_intervals() -> Iterator[Cell]:
    """Seconds, memory and bytes: one figure a seed."""
    for seeds, shape in itertools.product((3, 5, 8), ("normal", "heavy-tailed (t, 3 degrees)", "lognormal 0.7")):  # fmt: skip
        yield Cell(
            "Intervals of a figure that each seed has one of",
            f"{_by(seeds)}, {shape}",
            "",
            partial(
                missed,
                draw=partial(_seconds, shape=shape, seeds=seeds),
                interval=of_seconds,
                truth=1,
            ),
            None if shape == "lognormal 0.7" else LEVEL,
        )


COUNTS = (10, 20, 59, 100, 150, 400)


def run_intervals(interval: Callable[..., Interval | None] = ratio_interval) -> Iterator[Cell]:
    """What one run forgot, of documents that lose unevenly."""
    for shape, unlike, count in itertools.product(SHAPES, (False, True), COUNTS):
        length = "unlike length" if unlike else "one length"
        draw = Documents(count, shape, unlike=unlike)
        yield Cell(
            "Interval of one run's forgetting",
            f"{shape}, {count} documents",
            length,
            partial(missed, draw=draw, interval=interval, truth=MARGIN),
            LEVEL if count >= enough(shape) else None,
        )


FEWEST_FOR_1_IN_50 = 149


def verdicts() -> Iterator[Cell]:
    """Words that are not true, and how often "retained" is said where it is."""
    for shape, count in itertools.product(SHAPES, COUNTS):
        family, detail = shape, f"{count} documents"
        # What hides in one of fifty documents is in none of fewer than 149 with more than 5%.
        hidden = shape.startswith("1 in 50") and count < FEWEST_FOR_1_IN_50
        at_margin = Documents(count, shape, unlike=True)
        nothing = Documents(count, shape, mean=0.0, unlike=True)
        yield Cell(
            '"Retained" where the loss is the margin',
            family,
            detail,
            partial(said, draw=at_margin, word="retained"),
            None if hidden else LEVEL,
        )
        # Of skewed losses nearly all misses of a 95% interval are on one side: the losses'.
        for word, level in (("improved", LEVEL), ("forgot", LEVEL / 2)):
            yield Cell(
                f'"{word.capitalize()}" where nothing changed',
                family,
                detail,
                partial(said, draw=nothing, word=word),
                None if hidden and word == "improved" else level,
            )
        yield Cell(
            '"Retained" where nothing changed (power)',
            family,
            detail,
            partial(said, draw=nothing, word="retained"),
            None,
        )


def right_or_wrong() -> Iterator[Cell]:
    """Probes whose documents are right or wrong."""
    for base, lost, count in itertools.product((0.08, 0.75, 0.97), (0.0, 0.01, 0.05), (50, 250, 1000)):  # fmt: skip
        yield Cell(
            "Interval of a share that changed",
            f"base {base}, {lost * 100:.0f} points lost",
            f"{count} documents",
            partial(
                missed,
                draw=RightOrWrong(count, base, lost),
                interval=share_change_interval,
                truth=-lost,
            ),
        )


def matched_accuracy() -> Iterator[Cell]:
    """One strategy goes less far on the same curve: it forgets as much at the same accuracy."""
    for seeds, reach, spread in itertools.product((3, 5), (0.55, 0.85), (0.02, 0.1, 0.2)):
        yield Cell(
            "False differences of forgetting at matched accuracy",
            f"{_by(seeds)}, one goes {reach} as far",
            f"runs that vary by {spread}",
            partial(told_at_matched_accuracy, draw=Paths(seeds, reach, spread)),
            costly=True,
        )


def hostile() -> Iterator[Cell]:
    """What could break the rules."""
    for seeds in (3, 5):
        losses = Losses(seeds, 60, (0.4,) * 3, (1.0,) * 3, "lognormal 1.2")
        answers = Answers(seeds, 50, (0.65,) * 3, 0.0)
        false: dict[str, tuple[Any, Unit]] = {
            "strategies share the seed's luck": (dataclasses.replace(losses, seed_shape="shared"), "documents"),
            "one strategy has no spread over seeds": (dataclasses.replace(losses, spreads=(0.0, 0.4, 0.4)), "documents"),
            "one document has half of the bytes": (dataclasses.replace(losses, dominated=True), "documents"),
            "an outlier among seeds": (dataclasses.replace(losses, seed_shape="outlier"), "documents"),
            "15% of runs collapse, forgetting": (dataclasses.replace(losses, seed_shape="collapse"), "documents"),
            "all seeds answer alike": (dataclasses.replace(answers, rest=0.0), "rows"),
            "seeds answer nearly alike": (dataclasses.replace(answers, rest=0.1), "rows"),
            "15% of runs collapse, accuracy": (dataclasses.replace(answers, rows=300, collapse=COLLAPSED), "rows"),
        }  # fmt: skip
        for name, (draw, unit) in false.items():
            yield Cell(
                "False differences where assumptions fail",
                name,
                _by(seeds),
                partial(called_different, draw=draw, unit=unit),
                None if "collapse" in name else LEVEL,
            )
        missing = {
            "an outlier among seeds": ("outlier", False),
            "15% of runs collapse": ("collapse", False),
            "one document has half of the bytes": ("normal", True),
        }
        for name, (seed_shape, dominated) in missing.items():
            draw = Losses(seeds, 60, (0.2,), (1.0,), seed_shape=seed_shape, dominated=dominated)
            yield Cell(
                "Intervals where assumptions fail",
                name,
                _by(seeds),
                partial(missed_over_seeds, draw=draw, unit="documents", truth=MARGIN),
                LEVEL if seed_shape == "outlier" else None,
            )  # fmt: skip


def power() -> Iterator[Cell]:
    """How often a difference that there is is seen."""
    for seeds in (3, 5, 8):
        draws: dict[tuple[str, str], tuple[Any, Unit]] = {
            ("one forgets twice as much", f"{documents} documents"): (
                Losses(seeds, documents, (0.3, 0.3), (2.0, 1.0), "lognormal 0.7"),
                "documents",
            )
            for documents in (60, 400)
        }
        for points, rows in itertools.product((1, 2, 5), (300, 1500)):
            accurate = Answers(seeds, rows, (0.65, 0.65 - points / 100), 0.01)
            draws[f"{points} points of accuracy", f"{rows} rows"] = accurate, "rows"
        for (family, detail), (draw, unit) in draws.items():
            yield Cell(
                "True differences that are seen (power)",
                f"{family}, {_by(seeds)}",
                detail,
                partial(called_different, draw=draw, unit=unit),
                None,
                costly=True,
            )
        yield Cell(
            "True differences that are seen (power)",
            f"half the forgetting at matched accuracy, {_by(seeds)}",
            "runs that vary by 0.1",
            partial(told_at_matched_accuracy, draw=Paths(seeds, 0.55, 0.1, 0.5), first="the nearer"),
            None,
            costly=True,
        )  # fmt: skip


def cells() -> list[Cell]:
    """List every promise in every scenario."""
    groups = (
        false_forgetting,
        false_accuracy,
        matched_accuracy,
        hostile,
        crossed_intervals,
        accuracy_intervals,
        seed_intervals,
        run_intervals,
        right_or_wrong,
        verdicts,
        power,
    )
    return [cell for group in groups for cell in group()]


# The tables


def tables(rows: Sequence[Row]) -> str:
    """Set one Markdown table for each promise, with one line for each family of scenarios."""
    promises: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        promises.setdefault(row.promise, {}).setdefault(row.family, []).append(row)
    return "\n\n".join(
        "\n".join(_table(promise, families)) for promise, families in promises.items()
    )


def _table(promise: str, families: Mapping[str, list[Row]]) -> Iterator[str]:
    beside = list(next(iter(families.values()))[0].beside)
    yield f"### {promise}\n"
    yield " | ".join(["| scenario", "cells", "promised", "mean", "worst", *beside, "worst in", "repetitions |"])  # fmt: skip
    yield "|" + "---|" * (7 + len(beside))
    for family, members in families.items():
        # What is promised is apart from what is reported of the same family.
        for promised in dict.fromkeys(row.promised for row in members):
            yield _line(family, [row for row in members if row.promised == promised])


def _line(family: str, rows: Sequence[Row]) -> str:
    worst = max(rows, key=lambda row: row.observed)
    shown = f"{worst.observed:.1%}" if worst.kept else f"**{worst.observed:.1%} BROKEN**"
    cells = [
        family,
        str(len(rows)),
        "nothing" if worst.promised is None else f"{worst.promised:.1%}",
        f"{np.mean([row.observed for row in rows]):.1%}",
        shown,
        *(f"{share:.1%}" for share in worst.beside.values()),
        worst.scenario.removeprefix(family).removeprefix(", "),
        f"{worst.repetitions:,}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000, help="of every cell")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", default="", help="part of a promise's or a scenario's name")
    parser.add_argument("--json", type=Path, help="file for every cell")
    arguments = parser.parse_args()
    chosen = [place for place, cell in enumerate(cells()) if arguments.only in f"{cell.promise}: {cell.scenario}"]  # fmt: skip
    run = partial(_simulate, repetitions=arguments.repetitions)
    shown = partial(tqdm, total=len(chosen), disable=not sys.stderr.isatty())
    if arguments.jobs == 1:
        rows = list(shown(map(run, chosen)))
    else:
        with ProcessPoolExecutor(arguments.jobs) as pool:
            rows = list(shown(pool.map(run, chosen)))
    print(tables(rows))
    if arguments.json:
        whole = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
        arguments.json.write_text(f"{whole}\n", encoding="utf-8")
    broken = [f"{row.promise}: {row.scenario}" for row in rows if not row.kept]
    print(f"\n{len(rows)} cells, {len(broken)} promises broken")
    if broken:
        sys.exit(1)


def _simulate(place: int, repetitions: int) -> Row:
    """Simulate a cell by its place: a cell may hold functions that no other process can be sent."""
    return simulate(cells()[place], repetitions)


if __name__ == "__main__":
    main()
