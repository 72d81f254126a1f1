"""Rows that say nothing."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from peftune.data.cleaning import HTML
from peftune.data.text_hashes import NO_TEXT
from peftune.findings.check_input import DataFacts, quoted_start, rows_in_words, rows_where, some
from peftune.findings.finding import LABELLED, Check, CheckResult, Status

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
            for row, labels in split.labeled()
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


MARKUP = Check(
    code="html",
    worst="warn",
    looks_for="Texts hold HTML tags or entities: tokens that say nothing, and that new texts may not have.",
    rule="Any row with a tag of HTML, a comment, or an entity such as `&amp;`.",
    remedy="Set data.clean: [strip-html].",
    sound="No text holds HTML.",
)


def find_html(facts: DataFacts) -> CheckResult | None:
    """Look for tags and entities."""
    rows = rows_where(facts, lambda text: ("<" in text or "&" in text) and HTML.search(text))
    if not some(rows):
        return None
    split, row = next((split, found[0]) for split, found in rows.items() if found)
    text = facts.splits[split].texts[row]
    return MARKUP.found(f"{rows_in_words(rows)} with HTML, such as {quoted_start(text)}.", rows)


_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "English": "the and is are was were you your that this with have has had for not but what which from they would been will about there when",
        "German": "der die das und ist nicht ich mit ein eine einen für auf den dem sich auch wir sie war haben noch nach wie aber bei nur sind",
        "French": "le les est une des et pas que pour dans qui sur avec je vous nous sont mais cette être plus très ce tout fait aux elle ont",
        "Spanish": "el los las una que por para con está pero muy como más del es yo esto todo hay también cuando sin sobre porque tiene este",
        "Portuguese": "os uma que não para com mais está muito como você isso mas ele ela foi são tem também quando meu minha dos das pelo",
        "Italian": "il che non una per con sono è della questo più molto come anche ma gli hanno della nel perché questa ho ci si lo",
        "Dutch": "het een van niet dat zijn met voor maar ook ik je naar bij nog wel geen heeft deze wat kan als uit heb aan",
    }.items()
}
_WORD = re.compile(r"[^\W\d_]+")
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"})
_LETTERS = 10
_DIFFERENT, _LEAST_WORDS = 4, 6
_MOST_ASKED = 2000
_MOSTLY = 0.5

LANGUAGE = Check(
    code="other-language",
    worst="warn",
    looks_for="A row is in another language or alphabet than most: a base of English text can hardly learn it.",
    rule=f"More than half of at least {_LETTERS} letters are of another alphabet than most rows; or, of at least {_LEAST_WORDS} words, {_DIFFERENT} different ones are function words of another of seven languages and none of that of most rows. Not where the data have no such majority.",
    remedy="Remove the rows, unless new texts will be like them.",
    sound="All rows are in one language, as far as its commonest words tell.",
)


def find_other(facts: DataFacts) -> CheckResult | None:
    """Look for rows in another language."""
    alphabet, language = _usual(facts)
    rows = {
        name: [row for row, text in split.rows() if _is_other(text, alphabet, language)]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    split, row = next((split, found[0]) for split, found in rows.items() if found)
    text = facts.splits[split].texts[row]
    usual = language or f"the {(alphabet or '').title()} alphabet"
    return LANGUAGE.found(
        f"{rows_in_words(rows)} in another language than most, {usual}, such as {quoted_start(text)}.",
        rows,
    )


def _usual(facts: DataFacts) -> tuple[str | None, str | None]:
    """Find the alphabet and the language of most rows, by a sample of train."""
    used = [row for row, _ in facts.train.rows()]
    asked = [facts.train.texts[row] for row in used[:: 1 + len(used) // _MOST_ASKED]]
    alphabets = Counter(found for text in asked if (found := _alphabet(text)))
    languages = Counter(found for text in asked if (found := _language(text)))
    return _majority(alphabets), _majority(languages)


def _majority(counts: Counter[str]) -> str | None:
    if not counts:
        return None
    name, count = counts.most_common(1)[0]
    return name if count > _MOSTLY * counts.total() else None


def _is_other(text: str, alphabet: str | None, language: str | None) -> bool:
    if alphabet is not None and not text.isascii():
        found = _alphabet(text)
        if found is not None and found != alphabet:
            return True
    if language is None:
        return False
    words = _WORD.findall(text.casefold())
    if len(words) < _LEAST_WORDS or _WORDS[language].intersection(words):
        return False
    return any(
        len((known - _WORDS[language]).intersection(words)) >= _DIFFERENT
        for other, known in _WORDS.items()
        if other != language
    )


def _language(text: str) -> str | None:
    words = set(_WORD.findall(text.casefold()))
    found = {language: len(known & words) for language, known in _WORDS.items()}
    best = max(found, key=found.__getitem__)
    return best if found[best] else None


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
