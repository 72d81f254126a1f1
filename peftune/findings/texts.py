"""Texts without content, with misread or unseen characters, with markup, or in another language."""

from __future__ import annotations

import dataclasses
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from peftune.data import cleaning
from peftune.data.text_hashes import NO_TEXT
from peftune.files.publishing import writing
from peftune.findings.facts import (
    DataFacts,
    first_row,
    quoted_start,
    rows_in_words,
    rows_where,
    some,
)
from peftune.findings.finding import LABELED, CheckResult, FindingType, Status

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_SEEN = re.compile(r"[^\s\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0]")  # fmt: skip
_PLACEHOLDER = re.compile(
    r"nan|null|none|nil|n/?a|undefined|missing|#(?:n/a|ref|name|value|null|div/0|num)[!?]?|\[?(?:deleted|removed|redacted)\]?|tbd|todo|(?:lorem ipsum\b.*)",
    re.IGNORECASE,
)
_ADDRESSES = re.compile(r"(?:https?://|www\.)\S+|(?<!\w)@\w+")

EMPTY = FindingType(
    code="empty-text",
    scope="data",
    worst="fail",
    looks_for="A row has no text, or characters alone that nobody sees.",
    threshold="Any row. A warning with `data.empty_text: drop` or `keep`.",
    remedy="Mend the rows, or set data.empty_text: drop (leave them out) or keep.",
    sound="Every row has a text.",
)
PLACEHOLDER = FindingType(
    code="placeholder-text",
    scope="data",
    looks_for="A program has written a word for nothing in the place of a text: `nan`, `#N/A`, `[deleted]`.",
    threshold="The whole text is such a word.",
    remedy="Mend the rows, or remove them.",
    sound="No text is a placeholder.",
)
ADDRESSES = FindingType(
    code="addresses-alone",
    scope="data",
    looks_for="A text has nothing but links and handles, which do not tell the label of a new text.",
    threshold="Nothing but white space and punctuation is left of the text without them.",
    remedy="Remove the rows, unless links and handles decide the label.",
    sound="Every text has more than links and handles.",
)
HEADER = FindingType(
    code="repeated-header",
    scope="data",
    worst="fail",
    looks_for="The line of column names stands among the rows, as where files were joined; its label becomes a class.",
    threshold="Text and label of a row are the names of their columns.",
    remedy="Remove the rows.",
    sound="No row repeats the column names.",
    tasks=LABELED,
)
NUMBERS = FindingType(
    code="wrong-text-column",
    scope="data",
    looks_for="The texts are numbers or codes, as where `data.text_column` names an id.",
    threshold="More than half of the training texts have no letter, symbol or emoji.",
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
    result = EMPTY.in_rows(
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
    return PLACEHOLDER.in_rows(f"{rows_in_words(rows)} whose text is a word for nothing.", rows)


def find_addresses(facts: DataFacts) -> CheckResult | None:
    """Look for texts of links and handles."""
    rows = rows_where(
        facts,
        lambda text: _ADDRESSES.search(text) and not re.search(r"[^\s.,:;!?-]", _ADDRESSES.sub("", text)),
    )  # fmt: skip
    if not some(rows):
        return None
    return ADDRESSES.in_rows(f"{rows_in_words(rows)} with links or handles alone.", rows)


def find_header(facts: DataFacts) -> CheckResult | None:
    """Look for the column names among the rows."""
    text, label = facts.section.text_column, facts.section.label_column
    if not isinstance(text, str) or not isinstance(label, str) or facts.section.template:
        return None
    rows = {
        name: [
            row
            for row, labels in split.labeled()
            if labels == (label,) and split.texts[row].split("\n")[0].strip() == text
        ]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    return HEADER.in_rows(f"{rows_in_words(rows)} holds the column names.", rows)


def find_numbers(facts: DataFacts) -> CheckResult | None:
    """Check whether most texts of train are numbers."""
    train = facts.train
    rows = [row for row, text in train.rows() if _WORDLESS.fullmatch(text)]
    used = int((train.keys != NO_TEXT).sum())
    if 2 * len(rows) <= used:
        return None
    return NUMBERS.in_rows(
        f"{len(rows)} of {used} training texts have no letter; the first is '{train.texts[rows[0]]}'.",
        {"train": rows},
    )


_ESCAPE = re.compile(r"\\(?:n|r\\n|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|<U\+[0-9A-F]{4,8}>")
_BEFORE = 20
_PATH = re.compile(r"\b[A-Za-z]:(?:\\[\w.]+)+")

MISREAD = FindingType(
    code="mojibake",
    scope="data",
    looks_for="UTF-8 was read as another encoding: `cafÃ©` for `café`.",
    threshold="Any row with a sequence of characters that ftfy knows as misread text (its `badness`).",
    remedy="Read the source as UTF-8 and write the file anew.",
    sound="No text was read in a wrong encoding.",
)
LOST = FindingType(
    code="lost-characters",
    scope="data",
    looks_for="A character could not be read and was replaced by U+FFFD (`�`).",
    threshold="Any row.",
    remedy="Read the source in its own encoding and write the file anew.",
    sound="No character was lost.",
)
CONTROL = FindingType(
    code="control-characters",
    scope="data",
    looks_for="A text holds control characters, such as NUL, or such as turn the direction of writing.",
    threshold="Any row; line ends and tabs are none.",
    remedy="Set data.clean: [normalize-unicode].",
    sound="No text holds control characters.",
)
UNSEEN = FindingType(
    code="unseen-characters",
    scope="data",
    looks_for="A text holds characters that nobody sees, such as zero-width spaces or a byte order mark: they part equal words.",
    threshold="Any row; the joiners within emoji and scripts are none.",
    remedy="Set data.clean: [normalize-unicode].",
    sound="No text holds unseen characters.",
)
ESCAPED = FindingType(
    code="escape-residue",
    scope="data",
    looks_for="A text spells characters as a program's source does: `\\n`, `\\u00e9`, `<U+1F600>`.",
    threshold="Any row; file paths are none.",
    remedy="Decode the source once more and write the file anew.",
    sound="No text spells characters as escapes.",
)


def find_misread(facts: DataFacts) -> CheckResult | None:
    """Look for UTF-8 that was read as something else."""
    from ftfy.badness import BADNESS_RE

    # ASCII holds none; the regular expression would read it all the same.
    rows = rows_where(facts, lambda text: not text.isascii() and BADNESS_RE.search(text))
    return _found(MISREAD, facts, rows, BADNESS_RE)


def find_lost(facts: DataFacts) -> CheckResult | None:
    """Look for replaced characters."""
    return _rows(LOST, facts, re.compile("\ufffd"))


def find_control(facts: DataFacts) -> CheckResult | None:
    """Look for control characters."""
    return _rows(CONTROL, facts, cleaning.CONTROL)


def find_unseen(facts: DataFacts) -> CheckResult | None:
    """Look for characters that nobody sees."""
    return _rows(UNSEEN, facts, cleaning.UNSEEN)


def find_escaped(facts: DataFacts) -> CheckResult | None:
    """Look for escapes that were never decoded."""
    rows = rows_where(
        facts, lambda text: ("\\" in text or "<U+" in text) and _ESCAPE.search(_PATH.sub("", text))
    )
    return _found(ESCAPED, facts, rows, _ESCAPE)


def _rows(check: FindingType, facts: DataFacts, pattern: re.Pattern[str]) -> CheckResult | None:
    return _found(check, facts, rows_where(facts, pattern.search), pattern)


def _found(
    check: FindingType, facts: DataFacts, rows: dict[str, list[int]], pattern: re.Pattern[str]
) -> CheckResult | None:
    if not some(rows):
        return None
    split, row = first_row(rows)
    text = facts.splits[split].texts[row]
    match = pattern.search(text)
    start = max(0, match.start() - _BEFORE) if match else 0
    shown = "".join(_printable(character) for character in text[start:])
    return check.in_rows(f"{rows_in_words(rows)}, such as {quoted_start(shown)}.", rows)


def _printable(character: str) -> str:
    plain = character.isprintable() or character.isspace()
    return character if plain else ascii(character)[1:-1]


MARKUP = FindingType(
    code="html",
    scope="data",
    looks_for="Texts hold HTML tags or entities: tokens that say nothing, and that new texts may not have.",
    threshold="Any row with a tag of HTML, a comment, or an entity such as `&amp;`.",
    remedy="Set data.clean: [strip-html].",
    sound="No text holds HTML.",
)


def find_html(facts: DataFacts) -> CheckResult | None:
    """Look for tags and entities."""
    rows = rows_where(
        facts, lambda text: ("<" in text or "&" in text) and cleaning.HTML.search(text)
    )
    if not some(rows):
        return None
    split, row = first_row(rows)
    text = facts.splits[split].texts[row]
    return MARKUP.in_rows(f"{rows_in_words(rows)} with HTML, such as {quoted_start(text)}.", rows)


_NO_LANGUAGE = "zxx"
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"})
_LETTERS = 10
_LIKELY = 0.9
_READ = 200
_MOST_ASKED = 2000
_MOSTLY = 0.5

LANGUAGE = FindingType(
    code="other-language",
    scope="data",
    looks_for="A row is in another language or alphabet than most: a base of English text can hardly learn it.",
    threshold=f"More than half of at least {_LETTERS} letters are of another alphabet than most rows; or py3langid gives another of its 139 languages than that of most rows a probability of {_LIKELY:g} or more, from the first {_READ} characters. Not where the data have no such majority.",
    remedy="Remove the rows, unless new texts will be like them.",
    sound="No row is clearly in another language than most.",
)


def find_other(facts: DataFacts) -> CheckResult | None:
    """Look for rows in another language."""
    sample = [text for _, text in facts.train.rows()]
    sample = sample[:: 1 + len(sample) // _MOST_ASKED]
    alphabet, language = _majority(map(_alphabet, sample)), _majority(map(_language, sample))
    rows = rows_where(facts, lambda text: _is_other(text, alphabet, language))
    if not some(rows):
        return None
    split, row = first_row(rows)
    usual = f"'{language}'" if language else f"the {(alphabet or '').title()} alphabet"
    return LANGUAGE.in_rows(
        f"{rows_in_words(rows)} in another language than most ({usual}), such as {quoted_start(facts.splits[split].texts[row])}.",
        rows,
    )


def _majority(found: Iterable[str | None]) -> str | None:
    """Return the value of more than half of those that are not None."""
    counts = Counter(value for value in found if value is not None)
    if not counts:
        return None
    name, count = counts.most_common(1)[0]
    return name if count > _MOSTLY * counts.total() else None


def _is_other(text: str, alphabet: str | None, language: str | None) -> bool:
    # The library alone finds 68% of texts in other alphabets; with their alphabet it is 95%.
    if alphabet is not None and not text.isascii() and _alphabet(text) not in (None, alphabet):
        return True
    return language is not None and _language(text) not in (None, language)


def _language(text: str) -> str | None:
    """Return the ISO 639 code of a text's language; None if it is not clear."""
    language, probability = _identifier().classify(text[:_READ])
    return language if probability >= _LIKELY and language != _NO_LANGUAGE else None


def release_identifier() -> None:
    """Free the 73 MB of the language identifier, before a training whose memory is measured."""
    _identifier.cache_clear()


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # The library unpacks its model into a temporary file.
    with writing(Path(tempfile.gettempdir())):
        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _alphabet(text: str) -> str | None:
    """Return the script of most letters: `LATIN`, `CYRILLIC`, `CJK`; None for a few letters."""
    letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
    if not letters:
        return None
    names = (unicodedata.name(letter, "UNKNOWN").split()[0] for letter in letters)
    scripts = Counter("CJK" if name in _EAST_ASIAN else name for name in names)
    script, count = scripts.most_common(1)[0]
    # One Chinese character says as much as several letters.
    enough = len(letters) >= _LETTERS or script in {"CJK", "HANGUL"}
    return script if enough and count > _MOSTLY * len(letters) else None
