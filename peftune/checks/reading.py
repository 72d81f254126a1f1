"""From tables as they were read to what the checks look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from peftune.checks.facts import DataFacts, SplitFacts
from peftune.checks.length_counts import token_counts
from peftune.data.cells import cell_text
from peftune.data.clean import Cleaning
from peftune.data.keys import NO_TEXT, text_keys
from peftune.data.label_cells import label_finder, label_key, label_spellings
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
    written = {
        split: label_texts(recipe.task, table, recipe.data.label_column, recipe.data.labels)
        for split, table in tables.items()
    }
    name_of = _naming(names, written["train"])
    splits: dict[str, SplitFacts] = {
        split: _split(recipe, table, cleaning, tokenizer, written=written[split], name_of=name_of)
        for split, table in tables.items()
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
    known = recipe.task != "language-modeling"
    return SplitFacts(
        name=table.split,
        source=table.name,
        texts=texts,
        labels=labels,
        respelled=_respelled(written, labels),
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
        row: said[0]
        for row, (said, named) in enumerate(zip(written, labels, strict=True))
        if said and named and said != named and label_key(said[0]) == label_key(named[0])
    }


def _cells(table: SplitTable, name: str) -> Strings:
    cells = chunked_column(table.table, name, source=table.name)
    return Strings(lambda row: cell_text(cells[row]), np.arange(len(cells)))
