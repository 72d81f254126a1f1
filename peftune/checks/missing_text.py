"""Rows that say nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from peftune.checks.facts import DataFacts
from peftune.checks.places import rows_in_words, rows_where, some
from peftune.checks.result import LABELLED, Check, CheckResult, Status
from peftune.data.keys import NO_TEXT

_SEEN = re.compile(r"[^\s\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0]")  # fmt: skip
_PLACEHOLDER = re.compile(
    r"nan|null|none|nil|n/?a|undefined|missing|#(?:n/a|ref|name|value|null|div/0|num)[!?]?|\[?(?:deleted|removed|redacted)\]?|tbd|todo|(?:lorem ipsum\b.*)",
    re.IGNORECASE,
)
_ADDRESSES = re.compile(r"(?:https?://|www\.)\S+|(?<!\w)@\w+")

EMPTY = Check(
    code="empty-text",
    worst="fail",
    looks_for="A row has no text, or characters alone that nobody sees.",
    rule="Any row. A warning with `data.empty_text: drop` or `keep`.",
    remedy="Mend the rows, or set data.empty_text: drop (leave them out) or keep.",
    sound="Every row has a text.",
)
PLACEHOLDER = Check(
    code="placeholder-text",
    worst="warn",
    looks_for="A program has written a word for nothing in the place of a text: `nan`, `#N/A`, `[deleted]`.",
    rule="The whole text is such a word.",
    remedy="Mend the rows, or remove them.",
    sound="No text is a placeholder.",
)
ADDRESSES = Check(
    code="addresses-alone",
    worst="warn",
    looks_for="A text has nothing but links and handles, which do not tell the label of a new text.",
    rule="Nothing but white space and punctuation is left of the text without them.",
    remedy="Remove the rows, unless links and handles decide the label.",
    sound="Every text has more than links and handles.",
)
HEADER = Check(
    code="repeated-header",
    worst="fail",
    looks_for="The line of column names stands among the rows, as where files were joined; its label becomes a class.",
    rule="Text and label of a row are the names of their columns.",
    remedy="Remove the rows.",
    sound="No row repeats the column names.",
    tasks=LABELLED,
)
NUMBERS = Check(
    code="wrong-text-column",
    worst="warn",
    looks_for="The texts are numbers or codes, as where `data.text_column` names an id.",
    rule="More than half of the training texts have no letter, symbol or emoji.",
    remedy="Check data.text_column.",
    sound="The texts hold words.",
)

_WORDLESS = re.compile(r"[\d\s.,:;+/_-]*")


def find_empty(facts: DataFacts) -> CheckResult | None:
    """Look for rows without text; rows that are left out for it count as well."""
    mode: Literal["error", "drop", "keep"] = facts.section.empty_text
    rows = {
        name: [
            row
            for row, text in enumerate(split.texts)
            if not _SEEN.search(text) and (mode == "drop" or row not in split.left_out)
        ]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    status: Status = "fail" if mode == "error" else "warn"
    done = {"error": "", "drop": "; blank ones are left out", "keep": "; they are kept"}[mode]
    result = EMPTY.found(
        f"{rows_in_words(rows)} with an empty or missing text{done}.", rows, status=status
    )
    return dataclasses.replace(result, advice=_advice(facts, rows))


def _advice(facts: DataFacts, rows: Mapping[str, Sequence[int]]) -> str:
    """Say what helps, which is not what the recipe does already."""
    mode = facts.section.empty_text
    if mode == "error":
        return EMPTY.remedy
    if mode == "keep":
        return "Mend the rows, or set data.empty_text: drop to leave them out."
    stay = any(set(found) - facts.splits[name].left_out for name, found in rows.items())
    return "Set data.clean: [normalize-unicode] to leave the others out too." if stay else ""


def find_placeholders(facts: DataFacts) -> CheckResult | None:
    """Look for words that stand for nothing."""
    rows = rows_where(facts, lambda text: _PLACEHOLDER.fullmatch(text.strip()))
    if not some(rows):
        return None
    return PLACEHOLDER.found(f"{rows_in_words(rows)} whose text is a word for nothing.", rows)


def find_addresses(facts: DataFacts) -> CheckResult | None:
    """Look for texts of links and handles."""
    rows = rows_where(
        facts,
        lambda text: _ADDRESSES.search(text) and not re.search(r"[^\s.,:;!?-]", _ADDRESSES.sub("", text)),
    )  # fmt: skip
    if not some(rows):
        return None
    return ADDRESSES.found(f"{rows_in_words(rows)} with links or handles alone.", rows)


def find_header(facts: DataFacts) -> CheckResult | None:
    """Look for the column names among the rows."""
    text, label = facts.section.text_column, facts.section.label_column
    if not isinstance(text, str) or not isinstance(label, str) or facts.section.template:
        return None
    rows = {
        name: [
            row
            for row, labels in split.labelled()
            if labels == (label,) and split.texts[row].split("\n")[0].strip() == text
        ]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    return HEADER.found(f"{rows_in_words(rows)} holds the column names.", rows)


def find_numbers(facts: DataFacts) -> CheckResult | None:
    """Look whether most texts of train are numbers."""
    train = facts.train
    rows = [row for row, text in train.rows() if _WORDLESS.fullmatch(text)]
    used = int((train.keys != NO_TEXT).sum())
    if 2 * len(rows) <= used:
        return None
    return NUMBERS.found(
        f"{len(rows)} of {used} training texts have no letter; the first is '{train.texts[rows[0]]}'.",
        {"train": rows},
    )
