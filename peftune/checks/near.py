"""Texts that are nearly equal: found by MinHash, verified by their real likeness."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from peftune.data.keys import NO_TEXT
from peftune.data.normalised import normalised

LEAST_LIKENESS = 0.8
"""Share of the 5-character sequences of two texts, punctuation apart, that must be in both."""

SHORTEST = 20
"""Characters below which texts are compared as equal only: a letter more would be a fifth of them."""

_SEQUENCE = 5
_READ = 10_000
_BANDS, _IN_BAND = 25, 5
"""Texts of likeness 0.8 share a band with probability 1 - (1 - 0.8^5)^25 > 0.9999."""
_WINDOW = 20
"""Neighbours in a band that are compared, so that a text repeated a million times costs no square."""

_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two rows whose texts are nearly equal, and not equal.

    Args:
        first: split and row number of the one.
        second: those of the other, in a later split or below it.
        likeness: Jaccard likeness of their 5-character sequences, from 0.8 to 1.
    """

    first: tuple[str, int]
    second: tuple[str, int]
    likeness: float


def near_pairs(
    splits: Mapping[str, tuple[Sequence[str], NDArray[np.uint64]]],
) -> list[NearPair]:
    """Find the pairs of texts that are nearly equal, in time and memory proportional to the rows.

    Of equal texts of a split only the first is looked at.

    Args:
        splits: texts with their keys, by split.

    References:
        Broder 1997, On the resemblance and containment of documents; the signatures are those of
        datasketch. Its index keeps 5 KB a row, so bands are sorted here instead.
    """
    places = [
        (split, row) for split, (_, keys) in splits.items() for row in _first_rows(keys).tolist()
    ]
    sequences = (_sequences(splits[split][0][row]) for split, row in places)
    kept, signatures = _signatures(sequences, len(places))
    pairs = []
    for one, other in sorted(set(_candidates(signatures))):
        first, second = places[kept[one]], places[kept[other]]
        texts = [splits[split][0][row] for split, row in (first, second)]
        if splits[first[0]][1][first[1]] == splits[second[0]][1][second[1]]:
            continue
        likeness = jaccard(*map(_sequences, texts))
        if likeness >= LEAST_LIKENESS:
            pairs.append(NearPair(first, second, likeness))
    return pairs


def jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """Return the share of two sets' members that are in both, 0 to 1."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def _first_rows(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    found, first = np.unique(keys, return_index=True)
    return np.sort(first[found != NO_TEXT])


def _sequences(text: str) -> NDArray[np.uint32]:
    """Hash the different sequences of characters in a text, words alone, (sequences,), uint32."""
    plain = _NO_WORD.sub(" ", normalised(text)).strip()[:_READ]
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


def _signatures(
    texts: Iterator[NDArray[np.uint32]], most: int
) -> tuple[list[int], NDArray[np.uint32]]:
    """Sign each text that is long enough: (signed texts, bands * in band), with their places."""
    width = _BANDS * _IN_BAND
    signatures = np.empty((most, width), dtype=np.uint32)
    signed = MinHash(num_perm=width, hashfunc=int, scheme="affine32")
    start = signed.hashvalues
    kept: list[int] = []
    for place, sequences in enumerate(texts):
        if len(sequences):
            signed.hashvalues = start.copy()
            signed.update_batch(sequences)
            signatures[len(kept)] = signed.hashvalues
            kept.append(place)
    return kept, signatures[: len(kept)]


def _candidates(signatures: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Give the pairs that agree in a whole band."""
    for band in range(_BANDS):
        values = signatures[:, band * _IN_BAND : (band + 1) * _IN_BAND]
        mixed = np.zeros(len(values), dtype=np.uint64)
        for part in values.T:
            mixed = (mixed ^ part) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        order = np.argsort(mixed, kind="stable")
        ordered = mixed[order]
        for step in range(1, min(_WINDOW, len(order)) + 1):
            same = np.flatnonzero(ordered[step:] == ordered[:-step])
            if not len(same):
                break
            yield from zip(order[same].tolist(), order[same + step].tolist(), strict=True)
