"""Normalized texts, their hashes, and sketches of many texts: which texts count as equal."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LINK = re.compile(r"(?:https?://|(?<!\w)www\.)\S+", re.IGNORECASE)
HANDLE = re.compile(r"(?<!\w)@\w+")
"""The name of an account as it is mentioned; not what follows the name in an e-mail address."""


def normalized(text: str) -> str:
    """Return what is left of a text without case, links, handles and white space between words.

    Texts that are equal afterwards are one text to checks, to cleaning, and where rows are held
    out. A text of links and handles alone keeps them.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = HANDLE.sub(" ", LINK.sub(" ", folded)).split()
    return " ".join(words or folded.split())


SIZE = 128
"""Texts of a sketch: the share of seen texts is known to within 9 points at worst."""

_BYTES = 5


@dataclass(frozen=True, slots=True)
class RowSketch:
    """The smallest hashes of a set of texts (bottom-k): a sample that any other set can be held to.

    A text is in the sample by its hash alone, so of other texts those with hashes as small are
    either in the sketch or not among the texts. Case and white space do not matter.

    Args:
        hashes: at most 128, ascending.
        whole: whether there were no more texts than that.

    References:
        Cohen and Kaplan 2007, Summarizing data using bottom-k sketches.
    """

    hashes: tuple[bytes, ...]
    whole: bool

    @classmethod
    def of(cls, texts: Iterable[str]) -> RowSketch:
        """Take the sketch of texts."""
        found = sorted({_hash(text) for text in texts})
        return cls(tuple(found[:SIZE]), len(found) <= SIZE)

    @classmethod
    def parse(cls, written: str) -> RowSketch:
        """Read what `written` gave.

        Raises:
            ValueError: it is something else.
        """
        whole, colon, content = written.partition(":")
        joined = base64.b64decode(content, validate=True)
        hashes = tuple(joined[at : at + _BYTES] for at in range(0, len(joined), _BYTES))
        is_sound = whole + colon in {"all:", "sample:"} and len(joined) % _BYTES == 0
        is_sound = is_sound and 1 <= len(hashes) <= SIZE
        if not is_sound or list(hashes) != sorted(set(hashes)):
            message = f"'{written[:20]}…' is not a sketch of texts"
            raise ValueError(message)
        return cls(hashes, whole == "all")

    @property
    def written(self) -> str:
        """The sketch in one line of text."""
        content = base64.b64encode(b"".join(self.hashes)).decode("ascii")
        return f"{'all' if self.whole else 'sample'}:{content}"

    def found_in(self, texts: Sequence[str]) -> int:
        """Count the texts that are in the sketch."""
        return self._counts(texts)[0]

    def share_of(self, texts: Sequence[str]) -> float:
        """Estimate which share of texts was among those of the sketch, 0 to 1."""
        found, comparable = self._counts(texts)
        return found / comparable if comparable else 0.0

    def _counts(self, texts: Sequence[str]) -> tuple[int, int]:
        known, found, comparable = set(self.hashes), 0, 0
        for one in map(_hash, texts):  # there may be millions
            if self.whole or one <= self.hashes[-1]:
                comparable += 1
                found += one in known
        return found, comparable


def _hash(text: str) -> bytes:
    normalized = " ".join(text.lower().split())
    return hashlib.sha256(normalized.encode("utf-8", "surrogatepass")).digest()[:_BYTES]


NO_TEXT = 0
"""Key of a text with nothing in it, which is equal to no other."""


def text_keys(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Return a hash of each text as `normalized`, (texts,), uint64: 8 bytes a row are kept, no text.

    Two of ten million texts share a key by chance once in 400,000 data sets.
    """
    return np.fromiter((text_key(text) for text in texts), dtype=np.uint64)


def are_among(keys: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return whether each key is among others, (keys,); a text without content never is.

    By sorting: numpy's other way overflows on keys as large as these before numpy 2.1.
    """
    found: NDArray[np.bool_] = np.isin(keys, others, kind="sort") & (keys != NO_TEXT)
    return found


def text_key(text: str) -> int:
    """Return the key of one text."""
    kept = normalized(text)
    if not kept:
        return NO_TEXT
    content = kept.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
