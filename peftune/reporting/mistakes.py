"""The rows that each strategy gets wrong, the surest mistakes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peftune.reporting.contents import Block, Cell, Fold, Paragraph, Section, Table
from peftune.reporting.numbers import count, share
from peftune.reporting.subject import Subject
from peftune.runs.evidence import Evidence

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
        why = "Worth reading where labels are in doubt: a row that every strategy gets wrong, and is sure of, may be labelled wrongly."
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
