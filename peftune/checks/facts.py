"""What the checks look at: the rows of every split as they will be learned, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.checks.near import NearPair, near_pairs
from peftune.data.keys import NO_TEXT
from peftune.data.label_texts import LabelTexts
from peftune.recipe.data import DataSection
from peftune.recipe.task import TaskName


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """The rows of one split; a row's place is its number.

    Args:
        name: what the rows serve as.
        source: what the table is called in messages.
        texts: the text of every row, cleaned where the recipe asks for it.
        labels: the labels of every row, ids by name where the names are known; empty for language
            modeling.
        ids: the `id` column; None where there is none.
        groups: the group column; None where the recipe names none.
        keys: hash of every text as `normalised`, `NO_TEXT` for rows without text and for those that
            are left out, (rows,), uint64.
        left_out: numbers of the rows that cleaning, or `empty_text: drop`, leaves out.
        tokens: how many tokens each text has, (rows,), int32; None for language modeling.
        respelled: how the label of a row is written where that is not its name, by number: `1.0`
            of the label `1`.
    """

    name: str
    source: str
    texts: Sequence[str]
    labels: Sequence[LabelTexts]
    ids: Sequence[str] | None
    groups: Sequence[str] | None
    keys: NDArray[np.uint64]
    left_out: frozenset[int]
    tokens: NDArray[np.int32] | None
    respelled: Mapping[int, str] = field(default_factory=dict)

    def rows(self) -> Iterator[tuple[int, str]]:
        """Go through the rows with text, with their numbers."""
        for row, text in enumerate(self.texts):
            if self.keys[row] != NO_TEXT:
                yield row, text

    def labelled(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Go through the rows that are used and have labels, with their numbers."""
        for row, labels in enumerate(self.labels):
            if labels is not None and row not in self.left_out:
                yield row, labels


@dataclass(frozen=True)
class DataFacts:
    """All that the checks look at.

    Args:
        kind: the task.
        section: which rows.
        splits: the given splits; the parts that are held out of train are not among them.
        names: label names in the order of their ids, or the label columns; None where they are
            the labels of train.
        general: documents of each probe, by its name.
        max_length: tokens kept of each text.
        stages: the training texts of each stage, by its name.
    """

    kind: TaskName
    section: DataSection
    splits: Mapping[str, SplitFacts]
    names: tuple[str, ...] | None
    general: Mapping[str, Sequence[Any]]
    max_length: int
    stages: Mapping[str, Sequence[str]]

    @property
    def train(self) -> SplitFacts:
        """The rows that are learned."""
        return self.splits["train"]

    @property
    def pairs(self) -> list[tuple[SplitFacts, SplitFacts]]:
        """Every two splits, in the order train, validation, test."""
        return list(combinations(self.splits.values(), 2))

    @cached_property
    def near(self) -> Sequence[NearPair]:
        """Pairs of texts that are nearly equal, inside and across splits."""
        return near_pairs({name: (split.texts, split.keys) for name, split in self.splits.items()})

    @cached_property
    def label_counts(self) -> Mapping[str, Mapping[str, int]]:
        """Rows by label, by split."""
        counts: dict[str, dict[str, int]] = {}
        for name, split in self.splits.items():
            found = counts.setdefault(name, {})
            for _, labels in split.labelled():
                for label in labels:
                    found[label] = found.get(label, 0) + 1
        return counts
