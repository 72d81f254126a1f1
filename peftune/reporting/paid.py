"""Which documents of general text paid for what was learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftune.reporting.contents import Block, Cell, Fold, Paragraph, Section, Table
from peftune.reporting.numbers import plain, signed
from peftune.reporting.subject import Subject
from peftune.runs.evidence import Evidence

_SHOWN = 5


def paid_section(subject: Subject) -> Section:
    """Build, for each probe and strategy, a table of the documents that got worst."""
    blocks: list[Block] = []
    for probe in subject.probes:
        for strategy, items in subject.by_strategy.items():
            known = [item for item in items if probe in item.documents]
            if known:
                table = _documents(strategy, probe, subject.unit(probe), known)
                blocks.append(Fold(table.caption, [table]))
    if blocks:
        why = "The documents of each probe on which a strategy got worst, before and after training. The base is the same for all."
        blocks.insert(0, Paragraph(why))
    return Section("paid", "General text that paid", blocks)


def _documents(strategy: str, probe: str, unit: str, items: Sequence[Evidence]) -> Table:
    scores = [item.documents[probe] for item in items]
    first = scores[0]
    before = first.before / first.weight
    after = np.mean([one.after / one.weight for one in scores], axis=0)
    change = (before - after) if first.higher_is_better else (after - before)
    order = np.argsort(-change, kind="stable")[:_SHOWN]
    return Table(
        caption=f"{strategy} on {probe}: the {len(order)} of {len(change)} documents that got worst",
        columns=["Text", "Before", "After", "Forgetting"],
        rows=[
            [
                Cell(first.excerpts[index]),
                Cell(plain(float(before[index]))),
                Cell(plain(float(after[index]))),
                Cell(signed(float(change[index]))),
            ]
            for index in order
        ],
        align="trrr",
        cards=True,
        note=f"In {unit}; “after” is averaged over the seeds.",
    )
