"""How well each label of a multi-label task is found."""

from __future__ import annotations

from peftune.reporting.contents import Block, Cell, Fold, Section, Table
from peftune.reporting.numbers import count, share
from peftune.reporting.subject import Subject, title_of

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
                note="Over the rows in which the label is known. It is said from its threshold of probability on.",
            )
            many = len(rows) > _UNFOLDED
            blocks.append(Fold(f"{table.caption}: {len(rows)} labels", [table]) if many else table)
    return Section("labels", "Label by label", blocks)
