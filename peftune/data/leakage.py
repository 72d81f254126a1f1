"""Whether two texts share what one of them is to be judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peftune.data.cells import counted
from peftune.data.keys import NO_TEXT, text_keys
from peftune.data.split_tables import SplitTable
from peftune.data.text_column import texts_of
from peftune.errors import LeakageError
from peftune.recipe.data import DataSection, SplitName

WORDS = 13
"""Length of the word sequences that are compared, as in GPT-3's own overlap analysis."""

LARGEST_SHARE = 0.01

_SAME_ROWS: Mapping[tuple[SplitName, SplitName], str] = {
    ("train", "validation"): "What is learned would choose its own checkpoint: name other validation rows, or none, and data.validation_split holds some out of train.",
    ("train", "test"): "The score would be that of rows that were learned: name other test rows, or none and data.test_split, which holds some out of train.",
    ("validation", "test"): "The test would choose the checkpoint that it scores: name other validation rows, or none, and data.validation_split holds some out of train.",
}  # fmt: skip
"""What is wrong where two splits are the same rows, and what to do; taking rows out of train is no way."""


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
            if (said := _same_place(one, other) or _same_texts(one, other, section)) is not None:
                message = f"{said}. {advice}"
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
