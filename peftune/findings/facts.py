"""What findings are looked for in: the rows of every split before training, and a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from peftune.adapters.saving import Rounding
from peftune.data.cleaning import Cleaning
from peftune.data.labels import LabelTexts, label_finder, label_key, label_spellings, read_labels
from peftune.data.rows import counted, numbered
from peftune.data.similarity import NearPair, near_pairs
from peftune.data.split_tables import SplitTable
from peftune.data.text_hashes import NO_TEXT, text_keys
from peftune.forgetting.results import ProbeResult
from peftune.models.tokenizer import encode_texts
from peftune.recipe import Recipe
from peftune.recipe.data import DataSection, SplitName
from peftune.recipe.task_type import TaskName, TaskType, task_type
from peftune.tasks.scores import Learning
from peftune.training.train import TrainingResult


class Evaluation(NamedTuple):
    """What a training lost on rows at one of its evaluations, without dropout and regularizers.

    Args:
        step: after how many steps.
        training: mean loss of a sample of the training rows, nats; the same rows at every step.
        validation: mean loss of the validation rows, nats.
    """

    step: int
    training: float
    validation: float


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a finished run knows of itself.

    Args:
        recipe: the resolved recipe.
        learning: the score on held-out rows.
        probes: what each probe found.
        control: forgetting with the adapter off; None where there was none to switch off.
        training: how training went, with its curve.
        train_labels: training rows by label, in the order of the labels; 0 where there are none.
        validation_rows: rows of each evaluation in training.
        rounding: what came of rounding the weights for storage; None where it was not asked for.
    """

    recipe: Recipe
    learning: Learning
    probes: Sequence[ProbeResult]
    control: float | None
    training: TrainingResult
    train_labels: Mapping[str, int]
    validation_rows: int
    rounding: Rounding | None = None

    @property
    def train_rows(self) -> int:
        """Count the training rows of a single-label task."""
        return sum(self.train_labels.values())

    @property
    def evaluations(self) -> list[Evaluation]:
        """Return the losses of training and validation rows, which are on one scale, by step."""
        return [
            Evaluation(
                int(point["step"]),
                float(point["train_sample_loss"]),
                float(point["validation_loss"]),
            )
            for point in self.training.curve
            if "train_sample_loss" in point and "validation_loss" in point
        ]


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
        keys: hash of every text as `normalized`, `NO_TEXT` for rows without text and for those that
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

    def labeled(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Go through the rows that are used and have labels, with their numbers."""
        for row, labels in enumerate(self.labels):
            if labels is not None and row not in self.left_out:
                yield row, labels


@dataclass(frozen=True)
class DataFacts:
    """All that the checks look at.

    Args:
        task_name: the task type.
        section: which rows.
        splits: the given splits; the parts that are held out of train are not among them.
        names: label names in the order of their ids, or the label columns; None where they are
            the labels of train.
        general: documents of each probe, by its name.
        max_length: tokens kept of each text.
        stages: the training texts of each stage, by its name.
    """

    task_name: TaskName
    section: DataSection
    splits: Mapping[str, SplitFacts]
    names: tuple[str, ...] | None
    general: Mapping[str, Sequence[Any]]
    max_length: int
    stages: Mapping[str, Sequence[str]]

    @property
    def task_type(self) -> TaskType:
        """What distinguishes its task type from the others."""
        return task_type(self.task_name)

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
            for _, labels in split.labeled():
                for label in labels:
                    found[label] = found.get(label, 0) + 1
        return counts


def data_facts(
    recipe: Recipe,
    tables: Mapping[SplitName, SplitTable],
    cleaning: Cleaning,
    *,
    general: Mapping[str, Sequence[Any]],
    stages: Mapping[str, Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
) -> DataFacts:
    """Gather what the checks look at.

    Args:
        recipe: which rows, which task.
        tables: the splits as they were read.
        cleaning: their texts.
        general: documents of each probe, by its name.
        stages: training texts of each stage, by its name.
        tokenizer: of the base; not used for language modeling, whose texts are never cut.

    Raises:
        DataError: a column is missing.
    """
    names = _names(recipe, tables["train"])
    written = {
        split: read_labels(
            recipe.task_type, table, recipe.data.label_column, recipe.data.labels
        ).texts
        for split, table in tables.items()
    }
    name_of = _naming(names, written["train"])
    splits: dict[str, SplitFacts] = {
        split: _split(recipe, table, cleaning, tokenizer, written=written[split], name_of=name_of)
        for split, table in tables.items()
    }
    return DataFacts(
        task_name=recipe.task,
        section=recipe.data,
        splits=splits,
        names=names,
        general=general,
        max_length=recipe.model.max_length,
        stages=stages,
    )


def _split(
    recipe: Recipe,
    table: SplitTable,
    cleaning: Cleaning,
    tokenizer: PreTrainedTokenizerBase,
    *,
    written: Sequence[LabelTexts],
    name_of: Callable[[str], str],
) -> SplitFacts:
    section, columns = recipe.data, table.table.column_names
    texts = cleaning.texts[table.split]
    labels = [None if found is None else tuple(map(name_of, found)) for found in written]
    keys = text_keys(texts)
    left_out = cleaning.dropped if table.split == "train" else frozenset()
    if section.empty_text == "drop":
        left_out |= set(np.flatnonzero(keys == NO_TEXT).tolist())
    keys[list(left_out)] = NO_TEXT
    known = recipe.task_type.has_head
    return SplitFacts(
        name=table.split,
        source=table.name,
        texts=texts,
        labels=labels,
        respelled=_respelled(written, labels),
        ids=table.cells("id") if "id" in columns else None,
        groups=None if section.group_column is None else table.cells(section.group_column),
        keys=keys,
        left_out=left_out,
        tokens=_token_counts(texts, tokenizer) if known else None,
    )


def _names(recipe: Recipe, train: SplitTable) -> tuple[str, ...] | None:
    """Return the names that do not come from the rows: the recipe's, the columns', the data set's."""
    column = recipe.data.label_column
    if recipe.data.labels is not None:
        return recipe.data.labels
    if not isinstance(column, str):
        return column
    return train.class_names.get(column)


def _naming(names: tuple[str, ...] | None, train: Sequence[LabelTexts]) -> Callable[[str], str]:
    """Return what names a label as training does: by its id, or however else it is written.

    A label that is unknown stays as it is written. Where the names are the labels of train, an id
    is unknown too.
    """
    spelled = names or tuple(
        dict.fromkeys(
            label_spellings([label for labels in train for label in labels or ()]).values()
        )
    )
    find = label_finder(spelled, ids=names is not None)

    def name_of(label: str) -> str:
        index = find(label)
        return label if index is None else spelled[index]

    return name_of


def _respelled(written: Sequence[LabelTexts], labels: Sequence[LabelTexts]) -> dict[int, str]:
    """Find the rows whose one label is written in another way than its name, and not as its id."""
    return {
        row: cell[0]
        for row, (cell, named) in enumerate(zip(written, labels, strict=True))
        if cell and named and cell != named and label_key(cell[0]) == label_key(named[0])
    }


_CHUNK = 1000


def _token_counts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """Count the tokens of each text, (texts,), int32."""
    counts = np.empty(len(texts), dtype=np.int32)
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        encoded = encode_texts(tokenizer, chunk, max_length=None)
        counts[start : start + len(chunk)] = [len(ids) for ids in encoded]
    return counts


_SHOWN = 60


def placed(rows: Mapping[str, Sequence[int]]) -> str:
    """Name rows with their split: `train rows 3, 5; test row 7`."""
    return "; ".join(f"{split} {numbered(found)}" for split, found in rows.items() if found)


def rows_in_words(rows: Mapping[str, Sequence[int]]) -> str:
    """Count rows and name the first: `2 rows (train rows 3, 5)`."""
    return f"{counted(sum(map(len, rows.values())), 'row')} ({placed(rows)})"


def rows_where(facts: DataFacts, holds: Callable[[str], object]) -> dict[str, list[int]]:
    """Find the rows whose text is so; rows without text are not asked."""
    return {
        name: [row for row, text in split.rows() if holds(text)]
        for name, split in facts.splits.items()
    }


def first_row(rows: Mapping[str, Sequence[int]]) -> tuple[str, int]:
    """Return split and number of the first of some rows."""
    return next((split, found[0]) for split, found in rows.items() if found)


def some(rows: Mapping[str, Sequence[int]]) -> bool:
    """Return whether there are any rows."""
    return any(map(len, rows.values()))


def quoted_start(text: str) -> str:
    """Return the start of a text in quotes, on one line."""
    line = " ".join(text.split())
    return f"'{line if len(line) <= _SHOWN else line[: _SHOWN - 1] + '…'}'"
