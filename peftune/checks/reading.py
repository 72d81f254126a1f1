"""From tables as they were read to what the checks look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from peftune.checks.facts import DataFacts, SplitFacts
from peftune.checks.length_counts import token_counts
from peftune.data.cells import cell_text
from peftune.data.clean import Cleaning
from peftune.data.keys import NO_TEXT, text_keys
from peftune.data.label_cells import NUMBER
from peftune.data.label_texts import LabelTexts, label_texts
from peftune.data.split_tables import SplitTable
from peftune.data.strings import Strings
from peftune.data.tables import chunked_column
from peftune.recipe import Recipe
from peftune.recipe.data import SplitName


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
    splits: dict[str, SplitFacts] = {
        split: _split(recipe, table, cleaning, names, tokenizer) for split, table in tables.items()
    }
    return DataFacts(
        kind=recipe.task,
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
    names: tuple[str, ...] | None,
    tokenizer: PreTrainedTokenizerBase,
) -> SplitFacts:
    section, columns = recipe.data, table.table.column_names
    texts = cleaning.texts[table.split]
    labels = label_texts(recipe.task, table, section.label_column, section.labels)
    keys = text_keys(texts)
    left_out = cleaning.dropped if table.split == "train" else frozenset()
    if section.empty_text == "drop":
        left_out |= set(np.flatnonzero(keys == NO_TEXT).tolist())
    keys[list(left_out)] = NO_TEXT
    known = recipe.task != "language-modeling"
    return SplitFacts(
        name=table.split,
        source=table.name,
        texts=texts,
        labels=[_by_name(found, names) for found in labels],
        ids=_cells(table, "id") if "id" in columns else None,
        groups=None if section.group_column is None else _cells(table, section.group_column),
        keys=keys,
        left_out=left_out,
        tokens=token_counts(texts, tokenizer) if known else None,
    )


def _names(recipe: Recipe, train: SplitTable) -> tuple[str, ...] | None:
    """Return the names that do not come from the rows: the recipe's, the columns', the data set's."""
    column = recipe.data.label_column
    if recipe.data.labels is not None:
        return recipe.data.labels
    if not isinstance(column, str):
        return column
    return train.class_names.get(column)


def _by_name(labels: LabelTexts, names: tuple[str, ...] | None) -> LabelTexts:
    """Write ids as names; where names are numbers themselves, a number is a name."""
    if labels is None or names is None or any(NUMBER.fullmatch(name) for name in names):
        return labels
    ids = {str(index): name for index, name in enumerate(names)}
    return tuple(label if label in names else ids.get(label, label) for label in labels)


def _cells(table: SplitTable, name: str) -> Strings:
    cells = chunked_column(table.table, name, source=table.name)
    return Strings(lambda row: cell_text(cells[row]), np.arange(len(cells)))
