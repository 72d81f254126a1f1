"""Rows of one split that are in another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from peftune.checks.facts import DataFacts, SplitFacts
from peftune.checks.places import quoted_start, rows_in_words, some
from peftune.checks.result import Check, CheckResult, Status
from peftune.data.cells import counted
from peftune.data.keys import NO_TEXT, are_among
from peftune.errors import LeakageError

EQUAL = Check(
    code="leakage",
    worst="fail",
    looks_for="A text of one split is in another: what is learned, or decided by, is also what is scored.",
    rule="Equal without case, links, handles, white space and Unicode forms. A warning with `data.accept_leakage`.",
    remedy="Set data.clean: [drop-leaked] to take the rows out of train, mend the files, or set data.accept_leakage: true to have the score with and without them.",
    sound="No text of one split is in another.",
)
NEAR = Check(
    code="near-leakage",
    worst="warn",
    looks_for="A text of one split is in another but for a few characters, a word, or the order of its words.",
    rule="As for `near-duplicate`, across splits.",
    remedy="Look at the rows; remove from train what a program has copied.",
    sound="No text of one split is nearly in another.",
)
GROUPS = Check(
    code="group-leakage",
    worst="fail",
    looks_for="A group of `data.group_column`, such as an author, has rows in two splits, though its rows belong together.",
    rule="Any group. A warning with `data.accept_leakage`.",
    remedy="Keep each group in one split: leave the held-out files away and peftune does, or set data.accept_leakage: true.",
    sound="No group is in two splits.",
)


def find_equal(facts: DataFacts) -> CheckResult | None:
    """Look for texts that are in two splits."""
    shared: dict[str, set[int]] = {}
    said = []
    advice: set[str] = set()
    for one, other in facts.pairs:
        both = np.intersect1d(one.keys, other.keys)
        both = both[both != NO_TEXT]
        if not len(both):
            continue
        rows = [np.flatnonzero(are_among(split.keys, both)).tolist() for split in (one, other)]
        for split, found in zip((one, other), rows, strict=True):
            shared.setdefault(split.name, set()).update(found)
        said.append(_said(one, other, rows[1]))
        advice.add(_advice(one, facts))
    if not said:
        return None
    result = _judged(EQUAL, facts, "; ".join(said), _ordered(shared))
    return dataclasses.replace(result, advice=" ".join(sorted(advice)))


def same_rows(error: LeakageError) -> CheckResult:
    """Say of two splits that they are the same rows: nothing else is looked at, nor worth it."""
    return dataclasses.replace(EQUAL.found(str(error), {}), advice="")


def _advice(one: SplitFacts, facts: DataFacts) -> str:
    """Say what helps where a text of this split is in a later one: not what has been done already."""
    if one.name != "train":
        return "drop-leaked takes rows out of train alone: remove them from one of the two held-out splits, leave the validation rows out, so that some of train are held out, or set data.accept_leakage: true."
    if "drop-leaked" in facts.section.clean:
        return "A later step of data.clean made these texts equal: put drop-leaked last."
    return EQUAL.remedy


def find_near(facts: DataFacts) -> CheckResult | None:
    """Look for texts of two splits that differ little."""
    shared: dict[str, set[int]] = {}
    across = [pair for pair in facts.near if pair.first[0] != pair.second[0]]
    for pair in across:
        for split, row in (pair.first, pair.second):
            shared.setdefault(split, set()).add(row)
    if not across:
        return None
    (split, row), (other, beside) = across[0].first, across[0].second
    one, two = facts.splits[split], facts.splits[other]
    return NEAR.found(
        f"{counted(len(across), 'pair')} of nearly equal texts in two splits, such as {split} row {row}, {quoted_start(one.texts[row])}, and {other} row {beside}, {quoted_start(two.texts[beside])}.",
        _ordered(shared),
    )


def find_groups(facts: DataFacts) -> CheckResult | None:
    """Look for groups that are in two splits."""
    shared: dict[str, set[int]] = {}
    said = []
    for one, other in facts.pairs:
        both = _groups(one) & _groups(other)
        if not both:
            continue
        for split in (one, other):
            rows = [row for row, group in enumerate(split.groups or ()) if group in both]
            shared.setdefault(split.name, set()).update(rows)
        said.append(
            f"{counted(len(both), 'group')} of {other.name} in {one.name} too, such as '{min(both)}'"
        )
    rows_by_split = _ordered(shared)
    return _judged(GROUPS, facts, "; ".join(said), rows_by_split) if some(rows_by_split) else None


def _groups(split: SplitFacts) -> set[str]:
    groups = split.groups or ()
    return {group for row, group in enumerate(groups) if group and row not in split.left_out}


def _said(one: SplitFacts, other: SplitFacts, rows: Sequence[int]) -> str:
    """Say which rows of one split are in another, with the first pair."""
    place = int(np.flatnonzero(one.keys == other.keys[rows[0]])[0])
    are = "is" if len(rows) == 1 else "are"
    found = rows_in_words({other.name: rows})
    return f"{found} {are} in {one.name} too: {other.name} row {rows[0]} is {one.name} row {place}, {quoted_start(other.texts[rows[0]])}"


def _judged(
    check: Check, facts: DataFacts, said: str, rows: Mapping[str, Sequence[int]]
) -> CheckResult:
    accepted = facts.section.accept_leakage
    status: Status = "warn" if accepted else "fail"
    end = " (accepted by data.accept_leakage)." if accepted else "."
    return check.found(f"{said}{end}", rows, status=status)


def _ordered(rows: Mapping[str, set[int]]) -> dict[str, list[int]]:
    return {split: sorted(found) for split, found in rows.items()}
