"""Texts and ids that occur more than once inside a split, and texts with several labels."""

from __future__ import annotations

from collections.abc import Mapping

from peftune.checks.facts import DataFacts, SplitFacts
from peftune.checks.near import LEAST_LIKENESS, LEAST_WORDS, SHORTEST
from peftune.checks.places import quoted_start, rows_in_words, some
from peftune.checks.result import LABELLED, Check, CheckResult
from peftune.data.cells import counted
from peftune.data.keys import NO_TEXT

EQUAL = Check(
    code="duplicate-text",
    worst="warn",
    looks_for="A text stands in a split more than once: in train it weighs more, in a held-out split it is counted more than once.",
    rule="Equal without case, links, handles, white space and Unicode forms. Every row after the first counts.",
    remedy="Set data.clean: [drop-duplicates] for train, and mend held-out files.",
    sound="No text is repeated inside a split.",
)
NEAR = Check(
    code="near-duplicate",
    worst="warn",
    looks_for="Two texts of a split differ in a few characters, in a word, or in the order of their words.",
    rule=f"At least {LEAST_LIKENESS:.0%} of the 5-character sequences of two texts, punctuation apart, are in both (Jaccard; found by MinHash, then counted). Or both have {LEAST_WORDS} words or more and are one edit apart: a letter of a word, a space, another order, or a word more, fewer or other where the words that both have are together rarer than one in the cube of the number of texts. Texts under {SHORTEST} characters are compared as equal only.",
    remedy="Look at the rows; remove what a program has copied.",
    sound="No two texts of a split are nearly equal.",
)
CONFLICT = Check(
    code="conflicting-labels",
    worst="warn",
    looks_for="Equal texts have different labels: one of them is wrong, or the text does not decide the label.",
    rule="Equal as for `duplicate-text`, in all splits together.",
    remedy="Decide on one label; data.clean: [drop-duplicates] leaves such texts out of train.",
    sound="Equal texts have equal labels.",
    tasks=LABELLED,
)
IDS = Check(
    code="duplicate-id",
    worst="warn",
    looks_for="Two rows have one id, so predictions cannot be told apart, or rows were copied.",
    rule="Equal values in a column `id`, in one split or in two. Every row after the first counts.",
    remedy="Give every row an id of its own, or remove the copies.",
    sound="Every id is given once.",
)


def find_equal(facts: DataFacts) -> CheckResult | None:
    """Look for texts that are repeated in their split."""
    rows: dict[str, list[int]] = {}
    exact = 0
    for name, split in facts.splits.items():
        first: dict[int, int] = {}
        written: set[tuple[int, str]] = set()
        rows[name] = found = []
        for row, key in enumerate(split.keys.tolist()):
            if key == NO_TEXT:
                continue
            if key in first:
                found.append(row)
                written.add((key, split.texts[first[key]].strip()))
                spelled = (key, split.texts[row].strip())
                exact += spelled in written
                written.add(spelled)
            else:
                first[key] = row
    if not some(rows):
        return None
    count = sum(map(len, rows.values()))
    verb = "repeats" if count == 1 else "repeat"
    return EQUAL.found(
        f"{rows_in_words(rows)} {verb} the text of an earlier row of the split; {exact} of them to the letter.",
        rows,
    )


def find_near(facts: DataFacts) -> CheckResult | None:
    """Look for texts of one split that differ little."""
    shared: dict[str, list[int]] = {}
    inside = [pair for pair in facts.near if pair.first[0] == pair.second[0]]
    for pair in inside:
        shared.setdefault(pair.second[0], []).append(pair.second[1])
    rows = {split: sorted(set(found)) for split, found in shared.items()}
    if not inside:
        return None
    split, row = inside[0].first
    other = inside[0].second[1]
    texts = facts.splits[split].texts
    return NEAR.found(
        f"{rows_in_words(rows)} nearly equal to an earlier row of the split, such as row {row}, {quoted_start(texts[row])}, and row {other}, {quoted_start(texts[other])}.",
        rows,
    )


def find_conflicts(facts: DataFacts) -> CheckResult | None:
    """Look for equal texts with different labels."""
    labels: dict[int, set[tuple[str, ...]]] = {}
    for split in facts.splits.values():
        for key, found in _labelled_keys(split).values():
            labels.setdefault(key, set()).add(found)
    disputed = {key for key, found in labels.items() if len(found) > 1}
    rows = {
        name: [row for row, (key, _) in _labelled_keys(split).items() if key in disputed]
        for name, split in facts.splits.items()
    }
    if not disputed:
        return None
    return CONFLICT.found(
        f"{counted(len(disputed), 'text')} with different labels, in {rows_in_words(rows)}.", rows
    )


def _labelled_keys(split: SplitFacts) -> Mapping[int, tuple[int, tuple[str, ...]]]:
    keys = split.keys.tolist()
    return {
        row: (keys[row], tuple(sorted(labels)))
        for row, labels in split.labelled()
        if keys[row] != NO_TEXT
    }


def find_ids(facts: DataFacts) -> CheckResult | None:
    """Look for ids that are given twice."""
    seen: set[str] = set()
    rows: dict[str, list[int]] = {}
    for name, split in facts.splits.items():
        for row, value in enumerate(split.ids or ()):
            if value and value in seen:
                rows.setdefault(name, []).append(row)
            seen.add(value)
    if not rows:
        return None
    verb = "has" if sum(map(len, rows.values())) == 1 else "have"
    split_name = next(iter(rows))
    ids = facts.splits[split_name].ids or ()
    return IDS.found(
        f"{rows_in_words(rows)} {verb} the id of an earlier one, such as '{ids[rows[split_name][0]]}'.",
        rows,
    )
