"""Texts and ids that occur more than once, in a split or across splits, stages and probes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from peftune.data.rows import counted
from peftune.data.similarity import (
    LARGEST_SHARE,
    LEAST_LIKENESS,
    LEAST_WORDS,
    SHORTEST,
    WORDS,
    sequence_keys,
    shared_share,
    shares_a_sequence,
)
from peftune.data.text_hashes import NO_TEXT, are_among, text_keys
from peftune.errors import LeakageError
from peftune.findings.facts import DataFacts, SplitFacts, quoted_start, rows_in_words, some
from peftune.findings.finding import LABELED, CheckResult, FindingType, Status

DUPLICATES = FindingType(
    code="duplicate-text",
    scope="data",
    looks_for="A text stands in a split more than once: in train it weighs more, in a held-out split it is counted more than once.",
    threshold="Equal without case, links, handles, white space and Unicode forms. Every row after the first counts.",
    remedy="Set data.clean: [drop-duplicates] for train, and mend held-out files.",
    sound="No text is repeated inside a split.",
)
NEAR_DUPLICATES = FindingType(
    code="near-duplicate",
    scope="data",
    looks_for="Two texts of a split differ in a few characters, in a word, or in the order of their words.",
    threshold=f"At least {LEAST_LIKENESS:.0%} of the 5-character sequences of two texts, punctuation apart, are in both (Jaccard; found by MinHash, then counted). Or both have {LEAST_WORDS} words or more and are one edit apart: a letter of a word, a space, another order, or a word more, fewer or other where the words that both have are together rarer than one in the cube of the number of texts. Texts under {SHORTEST} characters are compared as equal only.",
    remedy="Look at the rows; remove what a program has copied.",
    sound="No two texts of a split are nearly equal.",
)
CONFLICT = FindingType(
    code="conflicting-labels",
    scope="data",
    looks_for="Equal texts have different labels: one of them is wrong, or the text does not decide the label.",
    threshold="Equal as for `duplicate-text`, in all splits together.",
    remedy="Decide on one label; data.clean: [drop-duplicates] leaves such texts out of train.",
    sound="Equal texts have equal labels.",
    tasks=LABELED,
)
IDS = FindingType(
    code="duplicate-id",
    scope="data",
    looks_for="Two rows have one id, so predictions cannot be matched to rows, or rows were copied.",
    threshold="Equal values in a column `id`, in one split or in two. Every row after the first counts.",
    remedy="Give every row an id of its own, or remove the copies.",
    sound="Every id is given once.",
)


def find_duplicates(facts: DataFacts) -> CheckResult | None:
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
    return DUPLICATES.in_rows(
        f"{rows_in_words(rows)} {verb} the text of an earlier row of the split; {exact} of them to the letter.",
        rows,
    )


def find_near_duplicates(facts: DataFacts) -> CheckResult | None:
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
    return NEAR_DUPLICATES.in_rows(
        f"{rows_in_words(rows)} nearly equal to an earlier row of the split, such as row {row}, {quoted_start(texts[row])}, and row {other}, {quoted_start(texts[other])}.",
        rows,
    )


def find_conflicts(facts: DataFacts) -> CheckResult | None:
    """Look for equal texts with different labels."""
    labels: dict[int, set[tuple[str, ...]]] = {}
    for split in facts.splits.values():
        for key, found in _labeled_keys(split).values():
            labels.setdefault(key, set()).add(found)
    disputed = {key for key, found in labels.items() if len(found) > 1}
    rows = {
        name: [row for row, (key, _) in _labeled_keys(split).items() if key in disputed]
        for name, split in facts.splits.items()
    }
    if not disputed:
        return None
    return CONFLICT.in_rows(
        f"{counted(len(disputed), 'text')} with different labels, in {rows_in_words(rows)}.", rows
    )


def _labeled_keys(split: SplitFacts) -> Mapping[int, tuple[int, tuple[str, ...]]]:
    keys = split.keys.tolist()
    return {
        row: (keys[row], tuple(sorted(labels)))
        for row, labels in split.labeled()
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
    return IDS.in_rows(
        f"{rows_in_words(rows)} {verb} the id of an earlier one, such as '{ids[rows[split_name][0]]}'.",
        rows,
    )


LEAKED = FindingType(
    code="leakage",
    scope="data",
    worst="fail",
    looks_for="A text of one split is in another: what is learned, or decided by, is also what is scored.",
    threshold="Equal without case, links, handles, white space and Unicode forms. A warning with `data.accept_leakage`.",
    remedy="Set data.clean: [drop-leaked] to take the rows out of train, mend the files, or set data.accept_leakage: true to have the score with and without them.",
    sound="No text of one split is in another.",
)
NEARLY_LEAKED = FindingType(
    code="near-leakage",
    scope="data",
    looks_for="A text of one split is in another but for a few characters, a word, or the order of its words.",
    threshold="As for `near-duplicate`, across splits.",
    remedy="Look at the rows; remove from train what a program has copied.",
    sound="No text of one split is nearly in another.",
)
GROUPS = FindingType(
    code="group-leakage",
    scope="data",
    worst="fail",
    looks_for="A group of `data.group_column`, such as an author, has rows in two splits, though its rows belong together.",
    threshold="Any group. A warning with `data.accept_leakage`.",
    remedy="Keep each group in one split: leave the held-out files away and peftune does, or set data.accept_leakage: true.",
    sound="No group is in two splits.",
)


def find_leaked(facts: DataFacts) -> CheckResult | None:
    """Look for texts that are in two splits."""
    shared: dict[str, set[int]] = {}
    described = []
    advice: set[str] = set()
    for one, other in facts.pairs:
        rows = [
            np.flatnonzero(are_among(mine.keys, its.keys)).tolist()
            for mine, its in ((one, other), (other, one))
        ]
        if not rows[0]:
            continue
        for split, found in zip((one, other), rows, strict=True):
            shared.setdefault(split.name, set()).update(found)
        described.append(_describe(one, other, rows[1]))
        advice.add(_advice(one, facts))
    if not described:
        return None
    result = _leak_result(LEAKED, facts, "; ".join(described), _ordered(shared))
    return dataclasses.replace(result, advice=" ".join(sorted(advice)))


def same_rows(error: LeakageError) -> CheckResult:
    """Say of two splits that they are the same rows: nothing else is looked at, nor worth it."""
    return dataclasses.replace(LEAKED.in_rows(str(error), {}), advice="")


def _advice(one: SplitFacts, facts: DataFacts) -> str:
    """Say what helps where a text of this split is in a later one: not what has been done already."""
    if one.name != "train":
        return "drop-leaked takes rows out of train alone: remove them from one of the two held-out splits, leave the validation rows out, so that some of train are held out, or set data.accept_leakage: true."
    if "drop-leaked" in facts.section.clean:
        return "A later step of data.clean made these texts equal: put drop-leaked last."
    return LEAKED.remedy


def find_nearly_leaked(facts: DataFacts) -> CheckResult | None:
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
    return NEARLY_LEAKED.in_rows(
        f"{counted(len(across), 'pair')} of nearly equal texts in two splits, such as {split} row {row}, {quoted_start(one.texts[row])}, and {other} row {beside}, {quoted_start(two.texts[beside])}.",
        _ordered(shared),
    )


def find_groups(facts: DataFacts) -> CheckResult | None:
    """Look for groups that are in two splits."""
    shared: dict[str, set[int]] = {}
    described = []
    for one, other in facts.pairs:
        both = _groups(one) & _groups(other)
        if not both:
            continue
        for split in (one, other):
            rows = [row for row, group in enumerate(split.groups or ()) if group in both]
            shared.setdefault(split.name, set()).update(rows)
        described.append(
            f"{counted(len(both), 'group')} of {other.name} in {one.name} too, such as '{min(both)}'"
        )
    rows_by_split = _ordered(shared)
    return (
        _leak_result(GROUPS, facts, "; ".join(described), rows_by_split)
        if some(rows_by_split)
        else None
    )


def _groups(split: SplitFacts) -> set[str]:
    groups = split.groups or ()
    return {group for row, group in enumerate(groups) if group and row not in split.left_out}


def _describe(one: SplitFacts, other: SplitFacts, rows: Sequence[int]) -> str:
    """Say which rows of one split are in another, with the first pair."""
    place = int(np.flatnonzero(one.keys == other.keys[rows[0]])[0])
    are = "is" if len(rows) == 1 else "are"
    found = rows_in_words({other.name: rows})
    return f"{found} {are} in {one.name} too: {other.name} row {rows[0]} is {one.name} row {place}, {quoted_start(other.texts[rows[0]])}"


def _leak_result(
    check: FindingType, facts: DataFacts, described: str, rows: Mapping[str, Sequence[int]]
) -> CheckResult:
    accepted = facts.section.accept_leakage
    status: Status = "warn" if accepted else "fail"
    end = " (accepted by data.accept_leakage)." if accepted else "."
    return check.in_rows(f"{described}{end}", rows, status=status)


def _ordered(rows: Mapping[str, set[int]]) -> dict[str, list[int]]:
    return {split: sorted(found) for split, found in rows.items()}


SHARED = FindingType(
    code="probe-leakage",
    scope="data",
    worst="fail",
    looks_for="Rows hold text of a probe, so that forgetting is measured on what was trained on.",
    threshold=f"More than {LARGEST_SHARE:.0%} of a probe's {WORDS}-word sequences are in train; a warning where fewer are, or where they are in a held-out split. Not to be accepted: give the probe another text.",
    remedy="Give the probe another text, or set data.clean: [drop-leaked].",
    sound="No row shares text with a probe.",
)
STAGES = FindingType(
    code="stage-leakage",
    scope="data",
    looks_for="A text of a held-out split is read in a stage, so that the model has seen it before it is scored, if without its label.",
    threshold="Equal as for `leakage`, with the training rows of a stage.",
    remedy="Leave the rows out of the stage's text.",
    sound="No stage reads a held-out text.",
)


def find_staged(facts: DataFacts) -> CheckResult | None:
    """Look for held-out texts that a stage reads."""
    rows: dict[str, set[int]] = {}
    described = []
    for stage, texts in facts.stages.items():
        read = text_keys(texts)
        found = {
            name: np.flatnonzero(are_among(split.keys, read)).tolist()
            for name, split in facts.splits.items()
            if name != "train"
        }
        if some(found):
            described.append(f"{rows_in_words(found)} read in stage '{stage}'")
            for name, seen in found.items():
                rows.setdefault(name, set()).update(seen)
    if not described:
        return None
    ordered = {name: sorted(seen) for name, seen in rows.items()}
    return STAGES.in_rows(f"{'; '.join(described)}.", ordered)


def find_shared(facts: DataFacts) -> CheckResult | None:
    """Look for rows with text of a probe."""
    rows: dict[str, set[int]] = {name: set() for name in facts.splits}
    described: list[str] = []
    status: Status = "warn"
    for probe, documents in facts.general.items():
        keys = sequence_keys(documents)
        found = {
            name: [row for row, text in split.rows() if shares_a_sequence(text, keys)]
            for name, split in facts.splits.items()
        }
        if not some(found):
            continue
        for name, shared in found.items():
            rows[name].update(shared)
        train = facts.train.texts
        share = shared_share(documents, [train[row] for row in found["train"]])
        if share > LARGEST_SHARE:
            status = "fail"
        are = "shares" if sum(map(len, found.values())) == 1 else "share"
        described.append(
            f"{rows_in_words(found)} {are} text with probe '{probe}'; {share:.1%} of its {WORDS}-word sequences are in train"
        )
    if not described:
        return None
    ordered = {name: sorted(found) for name, found in rows.items()}
    return SHARED.in_rows(f"{'; '.join(described)}.", ordered, status=status)
