"""Measure which near copies of a text are found, and which different texts are taken for copies: the table of docs/results.md.

    python tools/measure_near_leaks.py peftune/bundled/posts/*.jsonl

The files are train. For each kind of edit, edited copies of some of its texts are a test split of
their own, so that each kind is looked for by itself. Pairs inside the files are printed with
their texts, to be looked at: nothing was planted there.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from peftune.data.similarity import LEAST_LIKENESS, SHORTEST, NearPair, near_pairs
from peftune.data.text_column import read_texts
from peftune.data.text_hashes import normalized, text_keys

Edit = Callable[[list[str], Sequence[str], random.Random], list[str]]
"""Changes the words of a text; the second argument is all words of all texts, as often as they come."""


def main() -> None:
    """Plant, look, and print the table and the pairs among the given texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--planted", type=int, default=200, help="copies of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    texts = _different([text for path in arguments.texts for text in read_texts(path)])
    print(f"{len(texts)} different texts of {SHORTEST} characters or more\n")
    print("| edit | planted | by 80% of sequences alone | found |\n|---|---|---|---|")
    for name, edit in EDITS.items():
        rows, copies = _planted(texts, edit, arguments.planted, random.Random(arguments.seed))  # noqa: S311 - nothing is secret
        pairs = near_pairs(
            {"train": (texts, text_keys(texts)), "test": (copies, text_keys(copies))}
        )
        right = [pair for pair in pairs if _is_planted(pair, rows)]
        alike = len({pair.second for pair in right if pair.likeness >= LEAST_LIKENESS})
        print(f"| {name} | {len(rows)} | {alike} | {len({pair.second for pair in right})} |")
    inside = near_pairs({"train": (texts, text_keys(texts))})
    edited = [pair for pair in inside if pair.likeness < LEAST_LIKENESS]
    print(
        f"\npairs among the texts: {len(inside) - len(edited)} alike, {len(edited)} one edit apart"
    )
    for pair in edited:
        print(f"{pair.likeness:.2f}")
        for _, row in (pair.first, pair.second):
            print(f"  {' '.join(texts[row].split())}")


def _different(texts: Sequence[str]) -> list[str]:
    """Keep one of equal texts, and those that are long enough to be compared."""
    kept = {normalized(text): text for text in texts}
    return [text for plain, text in kept.items() if len(plain) >= SHORTEST]


def _planted(
    texts: Sequence[str], edit: Edit, most: int, draw: random.Random
) -> tuple[list[int], list[str]]:
    """Edit some texts; return their rows and the copies. A text that cannot be edited so is left out."""
    vocabulary = [word for text in texts for word in text.split()]
    rows: list[int] = []
    copies: list[str] = []
    for row in draw.sample(range(len(texts)), len(texts)):
        words = edit(texts[row].split(), vocabulary, draw)
        copy = " ".join(words)
        if len(rows) < most and normalized(copy) != normalized(texts[row]):
            rows.append(row)
            copies.append(copy)
    return rows, copies


def _is_planted(pair: NearPair, rows: Sequence[int]) -> bool:
    return (pair.first[0], pair.second[0]) == ("train", "test") and (
        rows[pair.second[1]] == pair.first[1]
    )


def _typo(words: list[str], _: Sequence[str], draw: random.Random) -> list[str]:
    """Leave out, double, replace or swap a letter of a word of four letters or more."""
    long = [place for place, word in enumerate(words) if re.fullmatch(r"[^\W\d_]{4,}", word)]
    if not long:
        return words
    place = draw.choice(long)
    word = words[place]
    at = draw.randrange(len(word) - 1)
    start, first, second, end = word[:at], word[at], word[at + 1], word[at + 2 :]
    other = draw.choice("abcdefghijklmnopqrstuvwxyz")
    ways = (second, first + first + second, other + second, second + first)
    words[place] = start + draw.choice(ways) + end
    return words


def _appended(words: list[str], vocabulary: Sequence[str], draw: random.Random) -> list[str]:
    return [*words, draw.choice(vocabulary)]


def _inserted(words: list[str], vocabulary: Sequence[str], draw: random.Random) -> list[str]:
    words.insert(draw.randrange(len(words)), draw.choice(vocabulary))
    return words


def _dropped(words: list[str], _: Sequence[str], draw: random.Random) -> list[str]:
    del words[draw.randrange(len(words))]
    return words


def _replaced(words: list[str], vocabulary: Sequence[str], draw: random.Random) -> list[str]:
    words[draw.randrange(len(words))] = draw.choice(vocabulary)
    return words


def _swapped(words: list[str], _: Sequence[str], draw: random.Random) -> list[str]:
    if len(words) > 1:
        one, other = draw.sample(range(len(words)), 2)
        words[one], words[other] = words[other], words[one]
    return words


def _halves_swapped(words: list[str], _: Sequence[str], draw: random.Random) -> list[str]:
    cut = draw.randrange(len(words))
    return words[cut:] + words[:cut]


def _joined(words: list[str], _: Sequence[str], draw: random.Random) -> list[str]:
    if len(words) > 1:
        place = draw.randrange(len(words) - 1)
        words[place : place + 2] = [words[place] + words[place + 1]]
    return words


def _times(count: int, edit: Edit) -> Edit:
    def edited(words: list[str], vocabulary: Sequence[str], draw: random.Random) -> list[str]:
        for _ in range(count):
            words = edit(words, vocabulary, draw) if words else words
        return words

    return edited


EDITS: dict[str, Edit] = {
    "a letter of a word": _typo,
    "a space lost": _joined,
    "a word appended": _appended,
    "a word inserted": _inserted,
    "a word dropped": _dropped,
    "a word replaced": _replaced,
    "two words swapped": _swapped,
    "start and end swapped": _halves_swapped,
    "two words replaced": _times(2, _replaced),
    "three words replaced": _times(3, _replaced),
}

if __name__ == "__main__":
    main()
