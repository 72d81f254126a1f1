"""The labels of a regression."""

from __future__ import annotations

import math

import numpy as np

from peftune.checks.facts import DataFacts, SplitFacts
from peftune.checks.places import rows_in_words, some
from peftune.checks.result import Check, CheckResult

_FAR = 20.0

NO_NUMBER = Check(
    code="label-no-number",
    worst="fail",
    looks_for="A label of a regression is no finite number.",
    rule="Any row.",
    remedy="Mend the labels, or check data.label_column.",
    sound="Every label is a number.",
    tasks=("regression",),
)
CONSTANT = Check(
    code="constant-label",
    worst="fail",
    looks_for="All labels of a split are the same number, so there is nothing to learn or to correlate.",
    rule="One value in all rows of a split.",
    remedy="Check data.label_column.",
    sound="The labels vary.",
    tasks=("regression",),
)
OUTLIER = Check(
    code="label-outlier",
    worst="warn",
    looks_for="A label lies so far out that it decides the squared error, as with a lost decimal point or a 999 for nothing.",
    rule=f"More than {_FAR:g} times as far from the median of train as the middle half is wide.",
    remedy="Mend the labels, or remove the rows.",
    sound="No label lies far out.",
    tasks=("regression",),
)


def find_no_numbers(facts: DataFacts) -> CheckResult | None:
    """Look for labels that are no numbers."""
    rows = {
        name: [row for row, value in _values(split) if not math.isfinite(value)]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    split, row = next((split, found[0]) for split, found in rows.items() if found)
    label = (facts.splits[split].labels[row] or ("",))[0]
    return NO_NUMBER.found(
        f"{rows_in_words(rows)} whose label is no number, such as '{label}'.", rows
    )


def find_constant(facts: DataFacts) -> CheckResult | None:
    """Look for splits in which nothing varies."""
    constant = {}
    for name, split in facts.splits.items():
        values = {value for _, value in _values(split) if math.isfinite(value)}
        if len(values) == 1:
            constant[name] = values.pop()
    if not constant:
        return None
    said = "; ".join(f"every label of {split} is {value:g}" for split, value in constant.items())
    return CONSTANT.found(f"{said[0].upper()}{said[1:]}.", {})


def find_outliers(facts: DataFacts) -> CheckResult | None:
    """Look for labels far out."""
    train = np.array([value for _, value in _values(facts.train) if math.isfinite(value)])
    if not len(train):
        return None
    low, middle, high = np.percentile(train, [25, 50, 75])
    limit = _FAR * (high - low)
    if not limit:
        return None
    rows = {
        name: [
            row
            for row, value in _values(split)
            if math.isfinite(value) and abs(value - middle) > limit
        ]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    return OUTLIER.found(
        f"{rows_in_words(rows)} more than {limit:g} away from the median, {middle:g}.", rows
    )


def _values(split: SplitFacts) -> list[tuple[int, float]]:
    return [(row, _number(labels[0])) for row, labels in split.labelled() if labels]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
