"""Rows that share text with the documents of probes, and held-out rows with those of stages."""

from __future__ import annotations

import numpy as np

from peftune.checks.facts import DataFacts
from peftune.checks.places import rows_in_words, some
from peftune.checks.result import Check, CheckResult, Status
from peftune.data.keys import NO_TEXT, are_among, text_keys
from peftune.data.leakage import (
    LARGEST_SHARE,
    WORDS,
    sequence_keys,
    shared_share,
    shares_a_sequence,
)

SHARED = Check(
    code="probe-leakage",
    worst="fail",
    looks_for="Rows hold text of a probe, so that forgetting is measured on what was trained on.",
    rule=f"More than {LARGEST_SHARE:.0%} of a probe's {WORDS}-word sequences are in train; a warning where fewer are, or where they are in a held-out split. Not to be accepted: give the probe another text.",
    remedy="Give the probe another text, or set data.clean: [drop-leaked].",
    sound="No row shares text with a probe.",
)
STAGES = Check(
    code="stage-leakage",
    worst="warn",
    looks_for="A text of a held-out split is read in a stage, so that the model has seen it before it is scored, if without its label.",
    rule="Equal as for `leakage`, with the training rows of a stage.",
    remedy="Leave the rows out of the stage's text.",
    sound="No stage reads a held-out text.",
)


def find_staged(facts: DataFacts) -> CheckResult | None:
    """Look for held-out texts that a stage reads."""
    rows: dict[str, set[int]] = {}
    said = []
    for stage, texts in facts.stages.items():
        read = text_keys(texts)
        found = {
            name: np.flatnonzero(are_among(split.keys, read) & (split.keys != NO_TEXT)).tolist()
            for name, split in facts.splits.items()
            if name != "train"
        }
        if some(found):
            said.append(f"{rows_in_words(found)} read in stage '{stage}'")
            for name, seen in found.items():
                rows.setdefault(name, set()).update(seen)
    if not said:
        return None
    ordered = {name: sorted(seen) for name, seen in rows.items()}
    return STAGES.found(f"{'; '.join(said)}.", ordered)


def find_shared(facts: DataFacts) -> CheckResult | None:
    """Look for rows with text of a probe."""
    rows: dict[str, set[int]] = {name: set() for name in facts.splits}
    said: list[str] = []
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
        said.append(
            f"{rows_in_words(found)} {are} text with probe '{probe}'; {share:.1%} of its {WORDS}-word sequences are in train"
        )
    if not said:
        return None
    ordered = {name: sorted(found) for name, found in rows.items()}
    return SHARED.found(f"{'; '.join(said)}.", ordered, status=status)
