"""Sections on the predictions: confusion, calibration, mistakes, and scores by label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peftune.experiments.run_evidence import Evidence
from peftune.reporting.contents import (
    Block,
    Cell,
    Figure,
    Figures,
    Fold,
    Paragraph,
    Section,
    Subject,
    Table,
    Tables,
    title_of,
)
from peftune.reporting.plots import reliability
from peftune.stats.formats import count, share
from peftune.stats.scores import Bin, expected_calibration_error, reliability_bins

_MATRIX_LABELS = 12
"""Labels up to which a confusion matrix fits on a screen; of more, the worst pairs are shown."""

_PAIRS = 15
_FLAT, _PAIR = 19.0, 27.0
_UPRIGHT_HEAD, _UPRIGHT_COLUMN = 11.0, 3.2
"""Widths in rem: a matrix of few labels, a table of pairs, and the parts of a wider matrix."""

Counts = NDArray[np.int64]
"""Rows by true and predicted label, (labels, labels)."""


def confusion_section(subject: Subject) -> Section:
    """Build the confusion matrix of each strategy over all its seeds, and its scores by label."""
    if not subject.by_strategy:
        return Section("confusion", "Confusion", [])
    pooled = {strategy: _counts(items) for strategy, items in subject.by_strategy.items()}
    names = list(subject.runs[0].learning.per_label)
    few = len(names) <= _MATRIX_LABELS
    blocks: list[Block] = [*(_matrices(names, pooled) if few else _pairs(names, pooled))]
    for strategy, counts in pooled.items():
        scores = _scores(strategy, names, counts)
        blocks.append(Fold(scores.caption, [scores]))
    return Section("confusion", "Confusion", blocks)


def _counts(items: Sequence[Evidence]) -> Counts:
    counts: Counts = np.array([item.run.learning.confusion for item in items]).sum(axis=0)
    return counts


def _matrices(names: Sequence[str], pooled: Mapping[str, Counts]) -> Iterator[Block]:
    """Give a confusion matrix for each strategy."""
    yield Paragraph(
        "A line is a true label, a column what was predicted; on the diagonal the two agree. Counts are rows, added up over the seeds; shading and percentages are shares of the true label."
    )
    tables = [_matrix(strategy, names, counts) for strategy, counts in pooled.items()]
    least = _UPRIGHT_HEAD + _UPRIGHT_COLUMN * len(names) if tables[0].upright else _FLAT
    yield Tables(tables, least)


def _matrix(strategy: str, names: Sequence[str], counts: Counts) -> Table:
    shares = _shares(counts)
    rows = [
        [Cell(name), *(_share_cell(*of) for of in zip(counts[index], shares[index], strict=True))]
        for index, name in enumerate(names)
    ]
    return Table(
        caption=strategy,
        columns=["True \N{RIGHTWARDS ARROW} predicted", *names],
        rows=rows,
        align="l" + "r" * len(names),
    )


def _share_cell(number: float, part: float) -> Cell:
    return Cell(count(float(number)), f"{part:.0%}" if number else "", share=float(part))


def _shares(counts: Counts) -> NDArray[np.float64]:
    """Divide each row by the rows of its true label."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _pairs(names: Sequence[str], pooled: Mapping[str, Counts]) -> Iterator[Block]:
    """Give the pairs that each strategy confuses most: a matrix of so many labels cannot be read."""
    yield Paragraph(
        f"Which label is taken for which, the most rows first. Rows are added up over the seeds; a share is one of all rows with the true label. The whole matrix of {len(names)} labels stands in report.json of each run."
    )
    tables = [_most_confused(strategy, names, counts) for strategy, counts in pooled.items()]
    yield Tables(tables, _PAIR)


def _most_confused(strategy: str, names: Sequence[str], counts: Counts) -> Table:
    shares = _shares(counts)
    wrong = [
        (int(true), int(assigned)) for true, assigned in np.argwhere(counts) if true != assigned
    ]
    wrong.sort(key=lambda pair: (-counts[pair], -shares[pair], pair))
    shown = wrong[:_PAIRS]
    return Table(
        caption=f"{strategy}: the {len(shown)} most confused of {len(wrong):,} pairs",
        columns=["True label", "Predicted", "Rows", "Share"],
        rows=[
            [
                Cell(names[pair[0]]),
                Cell(names[pair[1]]),
                Cell(count(float(counts[pair]))),
                Cell(f"{shares[pair]:.0%}"),
            ]
            for pair in shown
        ],
        align="llrr",
    )


def _scores(strategy: str, names: Sequence[str], counts: Counts) -> Table:
    """Score each label by the counts; a score over no rows is 0, as in report.json."""
    hits, rows, assigned = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    precision = hits / np.maximum(assigned, 1)
    recall = hits / np.maximum(rows, 1)
    f1 = 2 * hits / np.maximum(rows + assigned, 1)
    return Table(
        caption=f"{strategy}: scores of each label, the lowest F1 first",
        columns=["Label", "Precision", "Recall", "F1", "Rows"],
        rows=[
            [
                Cell(names[index]),
                *(Cell(share(float(of[index]))) for of in (precision, recall, f1)),
                Cell(count(float(rows[index]))),
            ]
            for index in np.argsort(f1, kind="stable")
        ],
        align="lrrrr",
        note="Over the rows of all seeds.",
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
    caption = "; ".join(
        f"confidence {one.low:.1f} to {one.high:.1f}: {one.count} rows, accuracy {share(one.accuracy)}"
        for one in bins
        if one.count
    )
    return Figure(
        reliability(bins, series, name=f"reliability-{series}"),
        f"Reliability of {strategy}",
        f"The rows of all seeds by the probability of the predicted label. {caption}.",
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


_SHOWN = 10

Wrong = NDArray[np.bool_]
"""Which rows the runs of a strategy get wrong, (seeds, rows)."""


def mistakes_section(subject: Subject) -> Section:
    """Build the counts of rows wrong with every seed, and a table of rows for each strategy."""
    wrong = {
        strategy: np.stack([item.rows.labels != item.rows.predicted for item in items])
        for strategy, items in subject.by_strategy.items()
    }
    blocks: list[Block] = []
    if len(wrong) > 1:
        blocks.append(_overlap(subject, wrong))
    for strategy, items in subject.by_strategy.items():
        if wrong[strategy].any():
            table = _mistakes(strategy, items, wrong[strategy])
            blocks.append(Fold(table.caption, [table]))
    if blocks:
        why = "Worth reading where labels are in doubt: a row that every strategy gets wrong, and is sure of, may be labeled wrongly."
        blocks.insert(0, Paragraph(why))
    return Section("mistakes", "Rows that they get wrong", blocks)


def _overlap(subject: Subject, wrong: Mapping[str, Wrong]) -> Table:
    everywhere = np.concatenate(list(wrong.values())).all(axis=0)
    rows = []
    for strategy, mine in wrong.items():
        others = np.concatenate([rest for name, rest in wrong.items() if name != strategy])
        always = mine.all(axis=0)
        rows.append(
            [
                Cell(strategy, series=subject.series(strategy)),
                Cell(count(int(always.sum()))),
                Cell(count(int((always & ~others.any(axis=0)).sum()))),
                Cell(count(int(everywhere.sum()))),
            ]
        )
    return Table(
        caption="Rows wrong with every seed",
        columns=["Strategy", "Rows", "Only here", "With every strategy"],
        rows=rows,
        align="lrrr",
        note="“Only here”: no other strategy gets the row wrong with any seed.",
    )


def _mistakes(strategy: str, items: Sequence[Evidence], wrong: Wrong) -> Table:
    times = wrong.sum(axis=0)
    surest = np.stack([item.rows.probabilities.max(axis=-1) for item in items])
    confidence = np.where(wrong, surest, 0.0).sum(axis=0) / np.maximum(times, 1)
    order = [int(row) for row in np.lexsort((-confidence, -times)) if times[row]]
    rows = items[0].rows
    return Table(
        caption=f"{strategy}: the {min(_SHOWN, len(order))} surest of {len(order)} wrong rows",
        columns=["Text", "Row", "True label", "Predicted", "Confidence", "Seeds wrong"],
        rows=[
            [
                Cell(rows.texts[row]),
                Cell(rows.ids[row]),
                Cell(rows.names[int(rows.labels[row])]),
                Cell(_answers(items, wrong, row)),
                Cell(share(float(confidence[row]))),
                Cell(f"{times[row]} of {len(items)}"),
            ]
            for row in order[:_SHOWN]
        ],
        align="tlllrr",
        cards=True,
        note="Those wrong with most seeds first; confidence is that of the wrong answers, averaged over the seeds.",
    )


def _answers(items: Sequence[Evidence], wrong: Wrong, row: int) -> str:
    """Name the wrong labels that the runs gave to a row."""
    given = [
        item.rows.names[int(item.rows.predicted[row])]
        for item, missed in zip(items, wrong[:, row], strict=True)
        if missed
    ]
    return " or ".join(dict.fromkeys(given))


_UNFOLDED = 12
"""Labels up to which a table of them is open."""

_COLUMNS = ("precision", "recall", "f1", "roc_auc", "threshold")


def labels_section(subject: Subject) -> Section:
    """Build a table of scores by label for each run."""
    blocks: list[Block] = []
    for run in subject.runs:
        rows = [
            [
                Cell(name),
                Cell(count(scores["support"])),
                *(Cell(share(scores.get(column))) for column in _COLUMNS),
            ]
            for name, scores in run.learning.per_label.items()
        ]
        if rows:
            table = Table(
                caption=title_of(run),
                columns=["Label", "Rows", "Precision", "Recall", "F1", "ROC AUC", "Threshold"],
                rows=rows,
                align="lrrrrrr",
                note="Over the rows in which the label is known. It is assigned from its decision threshold on.",
            )
            many = len(rows) > _UNFOLDED
            blocks.append(Fold(f"{table.caption}: {len(rows)} labels", [table]) if many else table)
    return Section("labels", "Label by label", blocks)
