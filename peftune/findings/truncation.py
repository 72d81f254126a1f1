"""Texts that are too long."""

from __future__ import annotations

import numpy as np

from peftune.findings.check_input import DataFacts, rows_in_words, some
from peftune.findings.finding import LABELLED, Check, CheckResult, Facts, Finding, Pitfall

_MANY = 0.05
_TIMES = 20
_LEAST = 200

CUT = Check(
    code="truncation",
    worst="warn",
    looks_for="Texts are longer than `model.max_length`; what decides the label may stand in the part that is cut off.",
    rule=f"More than {_MANY:.0%} of the rows of a split.",
    remedy="Raise model.max_length.",
    sound="Hardly any text is cut at model.max_length.",
    tasks=LABELLED,
)
OVERLONG = Check(
    code="overlong-text",
    worst="warn",
    looks_for="A text is so much longer than the others that it may be several rows in one, as after a quote that was never closed.",
    rule=f"More than {_TIMES} times the median of its split, and more than {_LEAST} tokens.",
    remedy="Look at the rows and mend the file.",
    sound="No text is much longer than all others.",
    tasks=LABELLED,
)


def find_cut(facts: DataFacts) -> CheckResult | None:
    """Look whether many texts are cut."""
    rows: dict[str, list[int]] = {}
    said = []
    for name, split in facts.splits.items():
        if split.tokens is None or not len(split.tokens):
            continue
        cut = np.flatnonzero(split.tokens > facts.max_length).tolist()
        if len(cut) > _MANY * len(split.tokens):
            rows[name] = cut
            said.append(
                f"{len(cut)} of {len(split.tokens)} texts of {name} ({len(cut) / len(split.tokens):.0%})"
            )
    if not said:
        return None
    return CUT.found(
        f"{'; '.join(said)} are longer than model.max_length, {facts.max_length} tokens.", rows
    )


def find_overlong(facts: DataFacts) -> CheckResult | None:
    """Look for texts that are much longer than the rest."""
    rows = {
        name: np.flatnonzero(
            split.tokens > max(_LEAST, _TIMES * float(np.median(split.tokens)))
        ).tolist()
        for name, split in facts.splits.items()
        if split.tokens is not None and len(split.tokens)
    }
    if not some(rows):
        return None
    split, row = next((split, found[0]) for split, found in rows.items() if found)
    tokens = facts.splits[split].tokens
    assert tokens is not None  # noqa: S101 - rows come from splits with tokens
    return OVERLONG.found(
        f"{rows_in_words(rows)} more than {_TIMES} times as long as the median; {split} row {row} has {tokens[row]} tokens.",
        rows,
    )


TRUNCATED_IN_RUN = Pitfall(
    code="truncation",
    scope="run",
    looks_for="What decides the label may stand in the part that was cut off.",
    threshold=f"More than {_MANY:.0%} of the training texts are longer than `model.max_length`; fewer could move the accuracy by no more than that share.",
)


def find_truncation(facts: Facts) -> Finding | None:
    """Look whether many training texts were cut."""
    cut, rows = facts.training.truncated, facts.train_rows
    if cut <= _MANY * rows:
        return None
    return TRUNCATED_IN_RUN.found(
        "warning",
        f"{cut} of {rows} training texts are longer than {facts.recipe.model.max_length} tokens and were cut.",
        "Raise model.max_length.",
    )
