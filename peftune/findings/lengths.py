"""How long texts are, and which are too long."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from peftune.findings.facts import DataFacts, RunFacts, first_row, rows_in_words, some
from peftune.findings.finding import LABELED, CheckResult, Finding, FindingType, Lengths

_BARS = 24


def lengths_of(tokens: Mapping[str, NDArray[np.int32]], max_length: int) -> Lengths | None:
    """Summarize token counts; None if there are no texts.

    Args:
        tokens: of each text, by split.
        max_length: tokens kept of each text.
    """
    tokens = {split: counts for split, counts in tokens.items() if len(counts)}
    if not tokens:
        return None
    together = np.concatenate(list(tokens.values()))
    top = max(float(np.percentile(together, 99.9)), max_length, _BARS)
    width = int(np.ceil(top / _BARS))
    edges = np.arange(_BARS + 1) * width
    return Lengths(
        max_length=max_length,
        edges=edges.tolist(),
        counts={
            split: np.histogram(np.minimum(counts, edges[-1]), edges)[0].tolist()
            for split, counts in tokens.items()
        },
        median={split: float(np.median(counts)) for split, counts in tokens.items()},
        longest={split: int(counts.max()) for split, counts in tokens.items()},
        truncated={split: int((counts > max_length).sum()) for split, counts in tokens.items()},
    )


_MANY = 0.05
_TIMES = 20
_LEAST = 200

CUT = FindingType(
    code="truncation",
    scope="data",
    looks_for="Texts are longer than `model.max_length`; what decides the label may stand in the part that is cut off.",
    threshold=f"More than {_MANY:.0%} of the rows of a split.",
    remedy="Raise model.max_length.",
    sound="Hardly any text is cut at model.max_length.",
    tasks=LABELED,
)
OVERLONG = FindingType(
    code="overlong-text",
    scope="data",
    looks_for="A text is so much longer than the others that it may be several rows in one, as after a quote that was never closed.",
    threshold=f"More than {_TIMES} times the median of its split, and more than {_LEAST} tokens.",
    remedy="Look at the rows and mend the file.",
    sound="No text is much longer than all others.",
    tasks=LABELED,
)


def find_cut(facts: DataFacts) -> CheckResult | None:
    """Check whether many texts are cut."""
    rows: dict[str, list[int]] = {}
    described = []
    for name, split in facts.splits.items():
        if split.tokens is None or not len(split.tokens):
            continue
        cut = np.flatnonzero(split.tokens > facts.max_length).tolist()
        if len(cut) > _MANY * len(split.tokens):
            rows[name] = cut
            described.append(
                f"{len(cut)} of {len(split.tokens)} texts of {name} ({len(cut) / len(split.tokens):.0%})"
            )
    if not described:
        return None
    return CUT.in_rows(
        f"{'; '.join(described)} are longer than model.max_length, {facts.max_length} tokens.",
        rows,
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
    split, row = first_row(rows)
    tokens = facts.splits[split].tokens
    assert tokens is not None  # noqa: S101 - rows come from splits with tokens
    return OVERLONG.in_rows(
        f"{rows_in_words(rows)} more than {_TIMES} times as long as the median; {split} row {row} has {tokens[row]} tokens.",
        rows,
    )


TRUNCATED_IN_RUN = FindingType(
    code="truncation",
    scope="run",
    looks_for="What decides the label may stand in the part that was cut off.",
    threshold=f"More than {_MANY:.0%} of the training texts are longer than `model.max_length`; fewer could move the accuracy by no more than that share.",
)


def find_truncation(facts: RunFacts) -> Finding | None:
    """Check whether many training texts were cut."""
    cut, rows = facts.training.truncated, facts.train_rows
    if cut <= _MANY * rows:
        return None
    return TRUNCATED_IN_RUN.found(
        "warning",
        f"{cut} of {rows} training texts are longer than {facts.recipe.model.max_length} tokens and were cut.",
        "Raise model.max_length.",
    )
