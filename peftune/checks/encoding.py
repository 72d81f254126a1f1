"""Characters that were lost or added on the way."""

from __future__ import annotations

import re

from peftune.checks.facts import DataFacts
from peftune.checks.places import quoted_start, rows_in_words, rows_where, some
from peftune.checks.result import Check, CheckResult

_CONTINUATION = "\x80-\xbf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178"
"""The bytes 0x80 to 0xbf, as Latin-1 and as Windows-1252 show them."""

_MISREAD = re.compile(
    f"[\u00c2\u00c3][{_CONTINUATION}]"  # the Latin letters with accents, two bytes each
    f"|(?:[\u00c4-\u00df][{_CONTINUATION}]){{2,}}"  # other alphabets, a word of them
    f"|[\u00e0-\u00ef][{_CONTINUATION}]{{2}}"  # quotes, dashes, signs
    f"|\u00f0[{_CONTINUATION}]{{3}}"  # emoji
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNSEEN = re.compile("[\u00ad\u200b\u2060-\u2064\ufeff\ufff9-\ufffb]")
_ESCAPE = re.compile(r"\\(?:n|r\\n|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|<U\+[0-9A-F]{4,8}>")
_BEFORE = 20
_PATH = re.compile(r"\b[A-Za-z]:(?:\\[\w.]+)+")

MISREAD = Check(
    code="mojibake",
    worst="warn",
    looks_for="UTF-8 was read as another encoding: `cafÃ©` for `café`.",
    rule="Any row with such a sequence of characters.",
    remedy="Read the source as UTF-8 and write the file anew.",
    sound="No text was read in a wrong encoding.",
)
LOST = Check(
    code="lost-characters",
    worst="warn",
    looks_for="A character could not be read and was replaced by U+FFFD (`�`).",
    rule="Any row.",
    remedy="Read the source in its own encoding and write the file anew.",
    sound="No character was lost.",
)
CONTROL = Check(
    code="control-characters",
    worst="warn",
    looks_for="A text holds control characters, such as NUL, or such as turn the direction of writing.",
    rule="Any row; line ends and tabs are none.",
    remedy="Set data.clean: [normalize-unicode].",
    sound="No text holds control characters.",
)
UNSEEN = Check(
    code="unseen-characters",
    worst="warn",
    looks_for="A text holds characters that nobody sees, such as zero-width spaces or a byte order mark: they part equal words.",
    rule="Any row; the joiners within emoji and scripts are none.",
    remedy="Set data.clean: [normalize-unicode].",
    sound="No text holds unseen characters.",
)
ESCAPED = Check(
    code="escape-residue",
    worst="warn",
    looks_for="A text spells characters as a program's source does: `\\n`, `\\u00e9`, `<U+1F600>`.",
    rule="Any row; file paths are none.",
    remedy="Decode the source once more and write the file anew.",
    sound="No text spells characters as escapes.",
)


def find_misread(facts: DataFacts) -> CheckResult | None:
    """Look for UTF-8 that was read as something else."""
    return _rows(MISREAD, facts, _MISREAD)


def find_lost(facts: DataFacts) -> CheckResult | None:
    """Look for replaced characters."""
    return _rows(LOST, facts, re.compile("\ufffd"))


def find_control(facts: DataFacts) -> CheckResult | None:
    """Look for control characters."""
    return _rows(CONTROL, facts, _CONTROL)


def find_unseen(facts: DataFacts) -> CheckResult | None:
    """Look for characters that nobody sees."""
    return _rows(UNSEEN, facts, _UNSEEN)


def find_escaped(facts: DataFacts) -> CheckResult | None:
    """Look for escapes that were never decoded."""
    rows = rows_where(
        facts, lambda text: ("\\" in text or "<U+" in text) and _ESCAPE.search(_PATH.sub("", text))
    )
    return _found(ESCAPED, facts, rows, _ESCAPE)


def _rows(check: Check, facts: DataFacts, pattern: re.Pattern[str]) -> CheckResult | None:
    return _found(check, facts, rows_where(facts, pattern.search), pattern)


def _found(
    check: Check, facts: DataFacts, rows: dict[str, list[int]], pattern: re.Pattern[str]
) -> CheckResult | None:
    if not some(rows):
        return None
    split, row = next((split, found[0]) for split, found in rows.items() if found)
    text = facts.splits[split].texts[row]
    match = pattern.search(text)
    start = max(0, match.start() - _BEFORE) if match else 0
    shown = "".join(_printable(character) for character in text[start:])
    return check.found(f"{rows_in_words(rows)}, such as {quoted_start(shown)}.", rows)


def _printable(character: str) -> str:
    plain = character.isprintable() or character.isspace()
    return character if plain else ascii(character)[1:-1]
