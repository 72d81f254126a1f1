"""The strategies above the baselines on one scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from peftune.compare.clean_rows import TITLES
from peftune.compare.summary import AgainstBaseline, Rung
from peftune.reporting.contents import Block, Cell, Figure, Figures, Paragraph, Section, Table
from peftune.reporting.numbers import between, count, estimate, share, signed
from peftune.reporting.plots import levels
from peftune.reporting.plotted import Level
from peftune.reporting.subject import Subject, title_of
from peftune.runs.report import Run


class _Entry(NamedTuple):
    """A line of the table, and what the plot draws of it; nothing where nothing was measured."""

    row: list[Cell]
    level: Level | None


def ladder_section(subject: Subject) -> Section:
    """Build the plot and the table of accuracies, baselines and strategies together, in one order."""
    rungs = _rungs(subject)
    if not rungs:
        return Section("ladder", "Against the baselines", [])
    entries = [*map(_baseline, rungs), *_strategies(subject)]
    entries.sort(key=lambda entry: -entry.level.value if entry.level else math.inf)
    shown = [entry.level for entry in entries if entry.level]
    order = ", ".join(f"{level.label} {share(level.value)}" for level in shown)
    table = Table(
        caption="Baselines and strategies on the same rows, most accurate first",
        columns=["", "Accuracy", "Macro F1"],
        rows=[entry.row for entry in entries],
        align="lrr",
        note="Below an accuracy: its 95% interval over rows.",
    )
    figure = Figure(
        levels(shown[::-1], name="ladder", x_label=_axis(shown)),
        "Accuracy of baselines and strategies",
        f"From the highest: {order}.",
        wide=True,
    )
    why = "What is gained over answers that cost little: each baseline is fitted to the same training rows and judged on the same rows as the strategies."
    blocks: list[Block] = [Paragraph(why), Figures([figure]), table]
    if subject.summary is not None and subject.summary.against_baseline:
        blocks.append(_against(subject, subject.summary.against_baseline))
    return Section("ladder", "Against the baselines", blocks)


def _against(subject: Subject, found: Sequence[AgainstBaseline]) -> Table:
    """Give the difference of each strategy to the best baseline, by which it beats it or not."""
    title = next(rung.title for rung in _rungs(subject) if rung.name == found[0].baseline)
    return Table(
        caption=f"Each strategy against the best baseline, {title}",
        columns=["Strategy", "Difference in accuracy", "Rows", "Beats it"],
        rows=[
            [
                Cell(one.strategy, series=subject.series(one.strategy)),
                Cell(signed(one.mean), between(one.ci95, signed) or one.reason or ""),
                Cell(count(one.n)),
                Cell("yes" if one.beats else "not clearly"),
            ]
            for one in found
        ],
        align="lrrl",
        note="The strategy minus the baseline, row by row on the rows that both answered; below it the 95% interval. A strategy beats the baseline if its interval lies above zero. With fewer than three seeds it speaks of these models on other rows.",
    )


def _axis(shown: Sequence[Level]) -> str:
    has_lines = any(level.interval is not None for level in shown)
    return "accuracy, lines are 95% intervals" if has_lines else "accuracy"


def _rungs(subject: Subject) -> Sequence[Rung]:
    """Take the comparison's ladder, or the baselines that a run has on its own."""
    if subject.summary is not None:
        return subject.summary.ladder
    return rungs_of(subject.runs[0]) if subject.runs else ()


def rungs_of(run: Run) -> list[Rung]:
    """Return the baselines that a run has on its own."""
    return [
        Rung(name, TITLES.get(name, name), scores["accuracy"], scores["macro_f1"], None)
        for name, scores in run.learning.baselines.items()
    ]


def _baseline(rung: Rung) -> _Entry:
    row = [
        Cell(rung.title, "; ".join(f"{key} {value}" for key, value in _told(rung))),
        Cell(share(rung.accuracy), rung.reason or between(rung.ci95, share)),
        Cell(share(rung.macro_f1)),
    ]
    if rung.accuracy is None:
        return _Entry(row, None)
    return _Entry(row, Level(rung.title, rung.accuracy, rung.ci95, None))


def _strategies(subject: Subject) -> Iterator[_Entry]:
    if subject.summary is None:
        for run in subject.runs:
            learning, series = run.learning, subject.series(run.run.strategy)
            if learning.accuracy is not None:
                interval, name = learning.ci95["accuracy"], title_of(run)
                row = [
                    Cell(name, series=series),
                    Cell(share(learning.accuracy), between(interval, share)),
                    Cell(share(learning.macro_f1)),
                ]
                yield _Entry(row, Level(name, learning.accuracy, interval, series))
        return
    for standing in subject.summary.standings:
        found, name = standing.figures["accuracy"], standing.strategy
        if found.mean is not None:
            series = subject.series(name)
            macro_f1 = standing.figures.get("macro_f1")
            row = [
                Cell(name, series=series),
                Cell(*estimate(found, "accuracy")),
                Cell(share(macro_f1.mean if macro_f1 else None)),
            ]
            yield _Entry(row, Level(name, found.mean, found.ci95, series))


def _told(rung: Rung) -> Iterator[tuple[str, str]]:
    """Give the details that fit into a line."""
    for key, value in rung.details.items():
        if isinstance(value, str | int | float) and len(str(value)) <= 40:  # noqa: PLR2004 - a line
            yield key.replace("_", " "), str(value)
