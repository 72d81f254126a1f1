"""Rows in another language or alphabet than the rest."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from peftune.checks.facts import DataFacts
from peftune.checks.places import quoted_start, rows_in_words, some
from peftune.checks.result import Check, CheckResult

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
