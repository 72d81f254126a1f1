"""What the classifiers answer: which labels they confuse, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftune.reporting.contents import (
    Block,
    Cell,
    Figure,
    Figures,
    Paragraph,
    Section,
    Table,
    Tables,
)
from peftune.reporting.numbers import count, share
from peftune.reporting.plots import reliability
from peftune.reporting.subject import Subject
from peftune.runs.evidence import Evidence
from peftune.training.calibration import Bin, expected_calibration_error, reliability_bins


def confusion_section(subject: Subject) -> Section:
    """Build a confusion matrix for each strategy, over all its seeds."""
    tables = [_confusion(strategy, items) for strategy, items in subject.by_strategy.items()]
    blocks: list[Block] = []
    if tables:
        why = "A line is a true label, a column what was predicted; on the diagonal the two agree. Counts are rows, added up over the seeds; shading and percentages are shares of the true label."
        blocks += [Paragraph(why), Tables(tables)]
    return Section("confusion", "Confusion", blocks)


def _confusion(strategy: str, items: Sequence[Evidence]) -> Table:
    names = list(items[0].run.learning.per_label)
    counts = np.sum([item.run.learning.confusion or () for item in items], axis=0)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    rows = [
        [
            Cell(name),
            *(
                Cell(count(float(number)), f"{part:.0%}", share=float(part))
                for number, part in zip(counts[index], shares[index], strict=True)
            ),
        ]
        for index, name in enumerate(names)
    ]
    return Table(
        caption=strategy,
        columns=["True \N{RIGHTWARDS ARROW} predicted", *names],
        rows=rows,
        align="l" + "r" * len(names),
    )


def calibration_section(subject: Subject) -> Section:
    """Build a reliability diagram for each strategy, and the table of calibration errors."""
    if not subject.by_strategy:
        return Section("calibration", "Calibration", [])
    figures = [
        _reliability(strategy, items, subject.series(strategy))
        for strategy, items in subject.by_strategy.items()
    ]
    why = "Whether a strategy is right as often as it says. Below the dashed line it is too sure of itself, above it too modest."
    return Section(
        "calibration",
        "Calibration",
        [Paragraph(why), Figures(figures), _calibration_errors(subject)],
    )


def _reliability(strategy: str, items: Sequence[Evidence], series: int) -> Figure:
    bins = reliability_bins(
        np.concatenate([item.rows.probabilities for item in items]),
        np.concatenate([item.rows.labels for item in items]),
    )
    told = "; ".join(
        f"confidence {one.low:.1f} to {one.high:.1f}: {one.count} rows, accuracy {share(one.accuracy)}"
        for one in bins
        if one.count
    )
    return Figure(
        reliability(bins, series, name=f"reliability-{series}"),
        f"Reliability of {strategy}",
        f"The rows of all seeds by the probability of the predicted label. {told}.",
        _bins_table(strategy, bins),
    )


def _bins_table(strategy: str, bins: Sequence[Bin]) -> Table:
    rows = [
        [
            Cell(f"{one.low:.1f} to {one.high:.1f}"),
            Cell(count(one.count)),
            Cell(share(one.confidence)),
            Cell(share(one.accuracy)),
        ]
        for one in bins
    ]
    columns = ["Confidence", "Rows", "Mean confidence", "Accuracy"]
    return Table(f"Reliability of {strategy}", columns, rows, "lrrr")


def _calibration_errors(subject: Subject) -> Table:
    rows = []
    for strategy, items in subject.by_strategy.items():
        errors = [
            expected_calibration_error(reliability_bins(item.rows.probabilities, item.rows.labels))
            for item in items
        ]
        rows.append(
            [
                Cell(strategy, series=subject.series(strategy)),
                Cell(", ".join(str(item.run.run.seed) for item in items)),
                Cell(", ".join(share(error) for error in errors)),
            ]
        )
    return Table(
        caption="Expected calibration error, lower is better",
        columns=["Strategy", "Seeds", "Error of each seed"],
        rows=rows,
        align="lrr",
        note="The mean distance between confidence and accuracy over rows, in ten bins of confidence.",
    )
