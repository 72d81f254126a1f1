"""The `data` part of a recipe."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from peftune.configuration import PathInRecipe, Section
from peftune.errors import visible
from peftune.seeds import MAX_SEED

SplitName = Literal["train", "validation", "test"]
TextStep = Literal["normalize-unicode", "strip-html", "replace-urls", "replace-mentions"]
"""A step of cleaning that changes texts; the artifact repeats it with every text that it reads."""

CleaningStep = Literal[TextStep, "drop-duplicates", "drop-leaked"]
ColumnName = Annotated[str, Field(min_length=1)]
_BLANK_LETTERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that Unicode counts as visible and that show nothing."""

_STYLE = re.compile("[\ufe00-\ufe0f]")
"""Marks that choose between the plain and the colored form of a character."""


def hidden_in(label: str) -> str:
    """Say what of a label is not seen; nothing where all of it is.

    An empty or blank label is not seen at all. The joiners U+200C and U+200D are allowed where
    `peftune.errors.visible` lets them stand.
    """
    if not label.strip():
        return "is empty" if not label else "is blank"
    for one in label:
        if (visible(one) != one and one not in "\u200c\u200d") or _BLANK_LETTERS.match(one):
            return f"holds the character U+{ord(one):04X}, which is not seen"
    joiner = next((one for one in label if one in "\u200c\u200d"), "")
    return (
        f"holds the character U+{ord(joiner):04X}, which is not seen"
        if visible(label) != label
        else ""
    )


def why_unclear(labels: Sequence[str]) -> str:
    """Say which labels cannot be told by reading them; nothing where all can.

    Two labels look alike where they differ in Unicode's form (NFC, NFD), in blanks or in whether a
    character is colored. Capitals, and letters of another alphabet, are another label.
    """
    seen: dict[str, str] = {}
    for label in labels:
        if hidden := hidden_in(label):
            return f"the label {label!a} {hidden}"
        form = _STYLE.sub("", unicodedata.normalize("NFC", " ".join(label.split())))
        if seen.setdefault(form, label) != label:
            return f"the labels {seen[form]!a} and {label!a} look alike"
    return ""


def _clear(labels: tuple[str, ...]) -> tuple[str, ...]:
    if unclear := why_unclear(labels):
        message = f"{unclear}; write each so that a reader can tell it"
        raise ValueError(message)
    return labels


Columns = Annotated[tuple[ColumnName, ...], Field(min_length=1, strict=False)]
LabelNames = Annotated[
    tuple[ColumnName, ...], Field(min_length=2, strict=False), AfterValidator(_clear)
]


def _one_character(delimiter: str) -> str:
    written = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if len(written) != 1 or written in '"\r\n':
        message = f'must be one character, such as ";" or "\\t", and neither a quote nor a line end (got {delimiter!r})'
        raise ValueError(message)
    return written


Delimiter = Annotated[str, AfterValidator(_one_character)]


class DataSection(Section):
    """Which rows are learned, and which are held out."""

    dataset_name: Annotated[str | None, PathInRecipe(or_name=True)] = Field(
        None, min_length=1, description="bundled:posts, a hub id, or a saved datasets folder."
    )
    dataset_config_name: str | None = Field(None, description="Configuration of the hub data set.")
    revision: str | None = Field(None, description="Commit, tag or branch of the hub data set.")
    splits: dict[SplitName, str] = Field(
        default_factory=dict,
        description="Which split of the data set serves as train, validation and test.",
    )
    train_file: Annotated[str | None, PathInRecipe()] = Field(
        None,
        description="csv, tsv, json, jsonl or parquet, relative to the recipe; instead of dataset_name.",
    )
    validation_file: Annotated[str | None, PathInRecipe()] = Field(
        None,
        description="Rows for choosing the best checkpoint; without it they are taken from train.",
    )
    test_file: Annotated[str | None, PathInRecipe()] = Field(
        None, description="Rows for the final score; never used for a decision."
    )
    delimiter: Delimiter | None = Field(
        None,
        description='What stands between two cells of csv and tsv files, such as ";"; null: a comma in .csv, a tab in .tsv.',
    )
    text_column: ColumnName | Columns = Field(
        "text", description="Column that holds the text, or several that are joined by line ends."
    )
    text_pair_column: ColumnName | None = Field(
        None, description="Column of the second text, which follows the first after a line end."
    )
    template: str | None = Field(
        None,
        min_length=1,
        description='Text made of several columns, such as "{title}: {body}"; in the place of text_column.',
    )
    label_column: ColumnName | Columns = Field(
        "label",
        description="Column that holds the label, as id or name; for multi-label a list of columns of 0 and 1, or one that holds lists; for regression a number.",
    )
    labels: LabelNames | None = Field(
        None,
        description="Label names in the order of their ids; otherwise the sorted labels of train.",
    )
    group_column: ColumnName | None = Field(
        None,
        description="Rows with the same value here, such as one author's, are held out together.",
    )
    validation_split: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of train held out for validation when there is no validation split; stratified.",
    )
    test_split: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of train held out for the test when there is no test split; stratified.",
    )
    cross_validation: int | None = Field(
        None,
        ge=2,
        le=20,
        description="Train once for each of so many folds of train, each scored by the run that did not see it; costs as many runs.",
    )
    fold: int | None = Field(
        None,
        ge=0,
        description="The fold that this run holds out, from 0; a run with cross_validation writes it into the recipes of its folds.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="Decides which rows are held out; not the seed of training.",
    )
    empty_text: Literal["error", "drop", "keep"] = Field(
        "error", description="What to do with rows whose text is empty or blank."
    )
    clean: tuple[CleaningStep, ...] = Field(
        (),
        strict=False,
        description="Steps of cleaning, done in this order and counted in the report; the files stay as they are. The artifact repeats those that change texts.",
    )
    accept_leakage: bool = Field(
        False,
        description="Run although texts of one split are in another; the report then has the score without them too.",
    )
    max_train_examples: int | None = Field(
        None, gt=0, description="Use at most this many rows; a seeded, stratified sample."
    )
    train_examples_per_label: int | None = Field(
        None, gt=0, description="Learn from this many rows of each label; a seeded sample."
    )
    max_validation_examples: int | None = Field(
        None, gt=0, description="As max_train_examples, for validation."
    )
    max_test_examples: int | None = Field(
        None, gt=0, description="As max_train_examples, for the test."
    )

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> DataSection:
        if (self.dataset_name is None) == (self.train_file is None):
            message = "needs either 'dataset_name' or 'train_file', and not both"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _names_nothing_twice(self) -> DataSection:
        for key in ("labels", "clean", "text_column", "label_column"):
            values = getattr(self, key)
            if isinstance(values, tuple) and len(set(values)) < len(values):
                message = f"'{key}' names {_noun(key)} twice"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _has_the_fold(self) -> DataSection:
        folds = self.cross_validation
        if self.fold is not None and (folds is None or self.fold >= folds):
            message = f"'fold' counts from 0, and there are {folds or 'no'} folds; see 'cross_validation'"
            raise ValueError(message)
        if folds is not None and self.train_examples_per_label is not None:
            message = "'cross_validation' learns from all rows of train but one fold's, so 'train_examples_per_label' does not go with it"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _makes_its_text_in_one_way(self) -> DataSection:
        if self.template is not None and (
            self.text_pair_column is not None or "text_column" in self.model_fields_set
        ):
            message = "'template' makes the text, so 'text_column' and 'text_pair_column' do not go with it"
            raise ValueError(message)
        if self.train_examples_per_label is not None and self.max_train_examples is not None:
            message = (
                "'train_examples_per_label' and 'max_train_examples' do not go together; give one"
            )
            raise ValueError(message)
        return self


def _noun(key: str) -> str:
    return {"labels": "a label", "clean": "a step"}.get(key, "a column")
