"""Texts that are nearly equal, splits with the same rows, and word sequences that texts share."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from peftune.data.rows import counted
from peftune.data.split_tables import SplitTable
from peftune.data.text_column import texts_of
from peftune.data.text_hashes import NO_TEXT, normalized, text_keys
from peftune.errors import LeakageError
from peftune.recipe.data import DataSection, SplitName

LEAST_LIKENESS = 0.8
"""Share of the 5-character sequences of two texts, punctuation apart, that must be in both."""

SHORTEST = 20
"""Characters below which texts are compared as equal only: a letter more would be a fifth of them."""

LEAST_WORDS = 6
"""Words below which one edit is not looked for: `i love my new phone` and `i love my new car` are two posts."""

RARITY = 3
"""Texts that differ in a word share words that are as rare together as 1 in this power of the texts."""

_MOST_WORDS = 64
"""Words above which no edit of one word takes a text below `LEAST_LIKENESS`."""
_ROWS_AT_ONCE = 4096
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_POWERS = np.array([pow(_BASE, place, 2**64) for place in range(_MOST_WORDS)], dtype=np.uint64)
"""A text is the sum of its words times the powers of its places, so words can be left out of it."""

_SEQUENCE = 5
_READ = 10_000
_BANDS, _IN_BAND = 25, 5
"""Texts of likeness 0.8 share a band with probability 1 - (1 - 0.8^5)^25 > 0.9999."""
_WINDOW = 20
"""Neighbors in a band that are compared, so that a text repeated a million times costs no square."""

_NO_WORD = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two rows whose texts are nearly equal, and not equal.

    Args:
        first: split and row number of the one.
        second: those of the other, in a later split or below it.
        likeness: Jaccard likeness of their 5-character sequences: from 0.8 to 1, or less where the
            texts are one edit apart.
    """

    first: tuple[str, int]
    second: tuple[str, int]
    likeness: float


@dataclass(frozen=True, slots=True)
class Words:
    """The words of many texts, as hashes, with how many texts each word is in.

    Args:
        hashes: of the words of every text of at most 64 words, one text after the other, int64.
        counts: words of each text, in hashes, 0 for longer texts.
        joined: hash of each text without its spaces, int64.
        texts_with: texts that a word is in.
    """

    hashes: array[int] = field(default_factory=lambda: array("q"))
    counts: array[int] = field(default_factory=lambda: array("q"))
    joined: array[int] = field(default_factory=lambda: array("q"))
    texts_with: Counter[str] = field(default_factory=Counter)

    def read(self, plain: str) -> None:
        """Add a text."""
        words = plain.split()
        self.texts_with.update(set(words))
        kept = words if len(words) <= _MOST_WORDS else ()
        self.hashes.extend(map(hash, kept))
        self.counts.append(len(kept))
        self.joined.append(hash("".join(words)))

    def rarity(self, words: Iterable[str]) -> float:
        """Return how rare texts with all of these words are, in bits, as if words came independently."""
        texts = len(self.counts)
        return sum(math.log2(texts / self.texts_with[word]) for word in set(words))

    def one_edit_apart(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Return whether one edit makes one text the other, and chance does not explain what they share.

        The edit is another order, a space, a letter of one word, or one word more, fewer or other.
        """
        if min(len(one), len(other)) < LEAST_WORDS:
            return False
        if sorted(one) == sorted(other) or "".join(one) == "".join(other):
            return True
        left, right = differing(one, other)
        if max(len(left), len(right)) > 1:
            return False
        if left and right:
            if _DIGIT.search(left[0] + right[0]):
                return False
            if is_typo(left[0], right[0]):
                return True
        return self.rarity({*one} & {*other}) >= RARITY * math.log2(len(self.counts))


def near_pairs(
    splits: Mapping[str, tuple[Sequence[str], NDArray[np.uint64]]],
) -> list[NearPair]:
    """Find the pairs of texts that are nearly equal, in time and memory proportional to the rows.

    Of equal texts of a split only the first is looked at.

    Args:
        splits: texts with their keys, by split.

    References:
        Broder 1997, On the resemblance and containment of documents; the signatures are those of
        datasketch. Its index keeps 5 KB a row, so bands are sorted here instead. Texts that differ
        in one word have a hash without one word in common: Mor and Fraenkel 1982, A hash code
        method for detecting and correcting spelling errors, with words in the place of letters.
    """
    places = [
        (split, row) for split, (_, keys) in splits.items() for row in _first_rows(keys).tolist()
    ]
    kept, found, words = _read(
        (_plain(splits[split][0][row]) for split, row in places), len(places)
    )
    found.update(_edited(words))
    pairs = []
    for one, other in sorted(found):
        first, second = places[kept[one]], places[kept[other]]
        if splits[first[0]][1][first[1]] == splits[second[0]][1][second[1]]:
            continue
        texts = [_plain(splits[split][0][row]) for split, row in (first, second)]
        likeness = jaccard(*map(_sequences, texts))
        if likeness >= LEAST_LIKENESS or words.one_edit_apart(*map(str.split, texts)):
            pairs.append(NearPair(first, second, likeness))
    return pairs


def jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """Return the share of two sets' members that are in both, 0 to 1."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def _first_rows(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    found, first = np.unique(keys, return_index=True)
    return np.sort(first[found != NO_TEXT])


def _plain(text: str) -> str:
    """Return the words alone, as far as they are read, with a space between them."""
    return _NO_WORD.sub(" ", normalized(text)).strip()[:_READ]


def _sequences(plain: str) -> NDArray[np.uint32]:
    """Hash the different sequences of characters in a text, (sequences,), uint32."""
    letters = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if len(letters) < SHORTEST:
        return np.empty(0, dtype=np.uint32)
    count = len(letters) - _SEQUENCE + 1
    mixed = np.zeros(count, dtype=np.uint32)
    for place in range(_SEQUENCE):
        mixed = mixed * np.uint32(0x02000327) ^ letters[place : place + count] * np.uint32(
            0x9E3779B1
        )
    return np.unique(mixed)


def _read(texts: Iterator[str], most: int) -> tuple[list[int], set[tuple[int, int]], Words]:
    """Sign each text that is long enough, and gather its words.

    Returns:
        The places of the texts that were signed, the pairs that MinHash finds, and the words.
    """
    width = _BANDS * _IN_BAND
    signatures = np.empty((most, width), dtype=np.uint32)
    signed = MinHash(num_perm=width, hashfunc=int, scheme="affine32")
    start = signed.hashvalues
    kept: list[int] = []
    words = Words()
    for place, plain in enumerate(texts):
        sequences = _sequences(plain)
        if len(sequences):
            signed.hashvalues = start.copy()
            signed.update_batch(sequences)
            signatures[len(kept)] = signed.hashvalues
            kept.append(place)
            words.read(plain)
    return kept, set(_candidates(signatures[: len(kept)])), words


def _candidates(signatures: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Give the pairs that agree in a whole band."""
    for band in range(_BANDS):
        values = signatures[:, band * _IN_BAND : (band + 1) * _IN_BAND]
        mixed = np.zeros(len(values), dtype=np.uint64)
        for part in values.T:
            mixed = (mixed ^ part) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        order = np.argsort(mixed, kind="stable")
        yield from _neighbors(mixed[order], order)


def _neighbors(
    ordered: NDArray[np.uint64], texts: NDArray[np.integer[Any]]
) -> Iterator[tuple[int, int]]:
    """Give the pairs of texts with one key, of a key of very many texts those near each other."""
    for step in range(1, min(_WINDOW, len(ordered)) + 1):
        same = np.flatnonzero(ordered[step:] == ordered[:-step])
        if not len(same):
            break
        yield from zip(texts[same].tolist(), texts[same + step].tolist(), strict=True)


def _edited(words: Words) -> Iterator[tuple[int, int]]:
    """Give the pairs that may be one edit apart, the earlier text first."""
    keys, texts = _keys(words)
    order = np.lexsort((texts, keys))
    keys, texts = keys[order], texts[order]
    del order
    again = np.flatnonzero((keys[1:] == keys[:-1]) & (texts[1:] == texts[:-1]))
    yield from _neighbors(np.delete(keys, again), np.delete(texts, again))


def _keys(words: Words) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Gather the keys of all texts, each with the number of its text, (keys,) and (keys,)."""
    counts = np.frombuffer(words.counts, dtype=np.int64)
    hashes = np.frombuffer(words.hashes, dtype=np.uint64)
    starts = np.cumsum(counts) - counts
    keys = [np.frombuffer(words.joined, dtype=np.uint64)]
    texts = [np.arange(len(counts), dtype=np.int32)]
    long_enough = np.flatnonzero(counts >= LEAST_WORDS)
    for first in range(0, len(long_enough), _ROWS_AT_ONCE):
        block = long_enough[first : first + _ROWS_AT_ONCE]
        for found, owners in _edit_keys(hashes, starts[block], counts[block]):
            keys.append(found)
            texts.append(block[owners].astype(np.int32))
    return np.concatenate(keys), np.concatenate(texts)


def _edit_keys(
    hashes: NDArray[np.uint64], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Give keys with the texts that they are of: texts one edit apart have one in common.

    A text has a key as it is, one without each of its words, and one in any order.
    """
    owners = np.repeat(np.arange(len(counts)), counts)
    heads = np.cumsum(counts) - counts
    place = np.arange(len(owners)) - heads[owners]
    word = hashes[starts[owners] + place]
    term = word * _POWERS[place]
    before = np.cumsum(term) - term
    before -= before[heads][owners]
    whole = np.add.reduceat(term, heads)
    yield whole, np.arange(len(counts))
    yield before + (whole[owners] - before - term) * np.uint64(_INVERSE), owners
    yield np.add.reduceat(word * np.uint64(_BASE) ^ word, heads), np.arange(len(counts))


def differing(one: Sequence[str], other: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return what is left of two sequences between their common start and their common end."""
    most = min(len(one), len(other))
    start = next((place for place in range(most) if one[place] != other[place]), most)
    most -= start
    end = next((place for place in range(most) if one[-1 - place] != other[-1 - place]), most)
    return one[start : len(one) - end], other[start : len(other) - end]


def is_typo(one: str, other: str) -> bool:
    """Return whether one letter more, fewer or other, or two that change places, make the one the other."""
    left, right = differing(one, other)
    swapped = len(left) == len(right) == 2 and left[::-1] == right  # noqa: PLR2004 - two letters
    return swapped or max(len(left), len(right)) <= 1


WORDS = 13
"""Length of the word sequences that are compared, as in GPT-3's own overlap analysis."""

LARGEST_SHARE = 0.01

_SAME_ROWS: Mapping[tuple[SplitName, SplitName], str] = {
    ("train", "validation"): "What is learned would choose its own checkpoint: name other validation rows, or none, and data.validation_split holds some out of train.",
    ("train", "test"): "The score would be that of rows that were learned: name other test rows, or none and data.test_split, which holds some out of train.",
    ("validation", "test"): "The test would choose the checkpoint that it scores: name other validation rows, or none, and data.validation_split holds some out of train.",
}  # fmt: skip
"""What is wrong where two splits are the same rows, and what to do; taking rows out of train is not a way."""


def refuse_same_splits(tables: Mapping[SplitName, SplitTable], section: DataSection) -> None:
    """Refuse two splits that are the same rows: one file, one split of a data set, or a copy.

    Cleaning cannot mend them: it would leave nothing to learn from, or the test to choose by.

    Args:
        tables: the splits as they were read.
        section: names them, and the columns of the text.

    Raises:
        DataError: a column is missing.
        LeakageError: two splits are the same, without `data.accept_leakage`.
    """
    if section.accept_leakage:
        return
    for pair, advice in _SAME_ROWS.items():
        if tables.keys() >= set(pair):
            one, other = (tables[split] for split in pair)
            if (
                problem := _same_place(one, other) or _same_texts(one, other, section)
            ) is not None:
                message = f"{problem}. {advice}"
                raise LeakageError(message)


def _same_place(one: SplitTable, other: SplitTable) -> str | None:
    if one.place != other.place:
        return None
    place = one.place
    what = f"file '{place.name}'" if isinstance(place, Path) else f"split '{place}'"
    return f"{one.key} and {other.key} are the same {what}"


def _same_texts(one: SplitTable, other: SplitTable, section: DataSection) -> str | None:
    """Compare texts in any order; of tables that differ in length none is read."""
    if one.table.num_rows != other.table.num_rows:
        return None
    keys, others = (np.sort(text_keys(texts_of(table, section))) for table in (one, other))
    if not len(keys) or keys[-1] == NO_TEXT or not np.array_equal(keys, others):
        return None
    return f"{one.name} and {other.name}, the {one.split} and the {other.split} rows, hold the same {counted(len(keys), 'text')}"


def refuse_overlap(
    documents: Sequence[Any], read: Sequence[Any], *, name: str, read_name: str
) -> None:
    """Refuse texts of which too much was read in training.

    Args:
        documents: evaluation documents.
        read: documents that training reads, or decides by.
        name: what the first are called in messages.
        read_name: what the second is called.

    Raises:
        LeakageError: more than 1% of the 13-word sequences of the documents are in the others.

    References:
        Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165, appendix C.
    """
    share = shared_share(documents, read)
    if share > LARGEST_SHARE:
        message = f"{share:.1%} of the {WORDS}-word sequences of {name} are in {read_name} too; at most {LARGEST_SHARE:.0%} may be. What is measured must share nothing with what training reads or decides by: give one of them another text."
        raise LeakageError(message)


def shared_share(documents: Sequence[Any], read: Sequence[Any]) -> float:
    """Return the share of the first texts' 13-word sequences that are in the others, 0 to 1.

    A shorter text counts as one sequence. Case and white space do not matter. Each part of a
    document, such as a sentence of a pair or an option, is a text of its own.
    """
    sequences = {sequence for document in documents for sequence in _word_sequences(document)}
    if not sequences:
        return 0.0
    found = {
        sequence
        for document in read
        for sequence in _word_sequences(document)
        if sequence in sequences
    }
    return len(found) / len(sequences)


def _word_sequences(document: Any) -> Iterator[str]:  # noqa: ANN401 - a string or a tuple of parts
    if isinstance(document, tuple):
        for part in document:
            yield from _word_sequences(part)
    if not isinstance(document, str):
        return
    words = document.lower().split()
    if not words:
        return
    for start in range(max(1, len(words) - WORDS + 1)):
        yield " ".join(words[start : start + WORDS])


def sequence_keys(documents: Sequence[Any]) -> frozenset[int]:
    """Hash every 13-word sequence of documents, to be looked up by `shares_a_sequence`."""
    return frozenset(
        hash(sequence) for document in documents for sequence in _word_sequences(document)
    )


def shares_a_sequence(text: str, keys: frozenset[int]) -> bool:
    """Return whether any 13-word sequence of a text is among those of documents."""
    return any(hash(sequence) in keys for sequence in _word_sequences(text))
