"""Whether two texts share what one of them is to be judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from peftune.errors import LeakageError

WORDS = 13
"""Length of the word sequences that are compared, as in GPT-3's own overlap analysis."""

LARGEST_SHARE = 0.01


def refuse_overlap(
    judged: Sequence[Any], read: Sequence[Any], *, judged_name: str, read_name: str
) -> None:
    """Refuse texts of which too much was read in training.

    Args:
        judged: documents whose figures are reported.
        read: documents that training reads, or decides by.
        judged_name: what the first is called in messages.
        read_name: what the second is called.

    Raises:
        LeakageError: more than 1% of the judged text's 13-word sequences are in the other.

    References:
        Brown et al. 2020, Language Models are Few-Shot Learners, arXiv:2005.14165, appendix C.
    """
    share = shared_share(judged, read)
    if share > LARGEST_SHARE:
        message = f"{share:.1%} of the {WORDS}-word sequences of {judged_name} are in {read_name} too; at most {LARGEST_SHARE:.0%} may be. What is measured must share nothing with what training reads or decides by: give one of them another text."
        raise LeakageError(message)


def shared_share(judged: Sequence[Any], read: Sequence[Any]) -> float:
    """Return the share of the first texts' 13-word sequences that are in the others, 0 to 1.

    A shorter text counts as one sequence. Case and white space do not matter. Each part of a
    document, such as a sentence of a pair or an option, is a text of its own.
    """
    sequences = {sequence for document in judged for sequence in _sequences(document)}
    if not sequences:
        return 0.0
    found = {
        sequence for document in read for sequence in _sequences(document) if sequence in sequences
    }
    return len(found) / len(sequences)


def _sequences(document: Any) -> Iterator[str]:  # noqa: ANN401 - a string or a tuple of parts
    if isinstance(document, tuple):
        for part in document:
            yield from _sequences(part)
    if not isinstance(document, str):
        return
    words = document.lower().split()
    if not words:
        return
    for start in range(max(1, len(words) - WORDS + 1)):
        yield " ".join(words[start : start + WORDS])


def sequence_keys(documents: Sequence[Any]) -> frozenset[int]:
    """Hash every 13-word sequence of documents, to be looked up by `shares_a_sequence`."""
    return frozenset(hash(sequence) for document in documents for sequence in _sequences(document))


def shares_a_sequence(text: str, keys: frozenset[int]) -> bool:
    """Say whether any 13-word sequence of a text is among those of documents."""
    return any(hash(sequence) in keys for sequence in _sequences(text))
