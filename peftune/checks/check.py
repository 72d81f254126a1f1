"""Check the data of a recipe before anything is trained on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from transformers import PreTrainedTokenizerBase

from peftune.checks.label_noise import (
    LabelNoiseReport,
    refuse_label_noise,
    with_label_noise,
    without_label_noise,
)
from peftune.checks.leakage import same_rows
from peftune.checks.length_counts import lengths_of
from peftune.checks.reading import data_facts
from peftune.checks.result import CheckReport, CheckResult, worst_of
from peftune.checks.table import READABLE, check_rows
from peftune.data.clean import Cleaning, clean_tables
from peftune.data.documents import load_documents
from peftune.data.leakage import refuse_same_splits
from peftune.data.split_tables import SplitTable, read_split_tables
from peftune.data.task import load_task, task_of
from peftune.errors import DataError, LeakageError
from peftune.models.fingerprint import find_sound_base
from peftune.models.tokenizer import load_tokenizer
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.recipe.data import SplitName
from peftune.recipe.task import refuse_label_mismatch


@overload
def check(
    recipe: str | Path | Recipe, *, overrides: Overrides = (), label_noise: Literal[False] = False
) -> CheckReport: ...


@overload
def check(
    recipe: str | Path | Recipe, *, overrides: Overrides = (), label_noise: Literal[True]
) -> LabelNoiseReport: ...


@overload
def check(
    recipe: str | Path | Recipe, *, overrides: Overrides = (), label_noise: bool
) -> CheckReport: ...


@working("checking the data")
def check(
    recipe: str | Path | Recipe, *, overrides: Overrides = (), label_noise: bool = False
) -> CheckReport:
    """Check the data of a recipe; nothing is trained, and no file is changed.

    A fault of the data is a result of the report and no exception, also where a file cannot be
    read.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments, such as `data.clean=[drop-duplicates]`.
        label_noise: look for wrong labels in train, too. The base reads every text once.

    Returns:
        What was found; with `label_noise` a `LabelNoiseReport`, whose `label_noise` has the rows.

    Raises:
        RecipeError: the recipe is none.
        BaseModelError: the base cannot be found or used.
        UsageError: texts are longer than the base has positions; or wrong labels cannot be looked
            for, since the task has no single label or cleanlab is not installed.
    """
    chosen = resolve(read_recipe(recipe, overrides))
    if label_noise:
        refuse_label_noise(chosen)
    model = chosen.model
    source = find_sound_base(model.name_or_path, model.revision, max_length=model.max_length)
    tokenizer = load_tokenizer(source.folder)
    try:
        stages = {
            stage.name: load_task(stage.data, stage.task).train.texts for stage in chosen.stages
        }
        general = {probe.label: load_documents(probe) for probe in chosen.forgetting.probes}
        tables = read_split_tables(chosen.data)
        refuse_same_splits(tables, chosen.data)
        documents = [document for text in general.values() for document in text]
        cleaning = clean_tables(tables, chosen.data, chosen.task, general=documents)
    except DataError as error:
        return _unusable(error, label_noise=label_noise)
    except LeakageError as error:
        return _failed(same_rows(error), label_noise=label_noise)
    report = check_tables(
        chosen, tables, cleaning, general=general, stages=stages, tokenizer=tokenizer
    )
    report = _with_refusals(report, chosen, tables, cleaning)
    if not label_noise:
        return report
    if report.exit_code == DataError.exit_code:
        return without_label_noise(report)
    task = task_of(_numbered(tables), chosen.data, chosen.task, cleaning=cleaning)
    return with_label_noise(report, chosen, task)


def check_tables(
    recipe: Recipe,
    tables: Mapping[SplitName, SplitTable],
    cleaning: Cleaning,
    *,
    general: Mapping[str, Sequence[Any]],
    stages: Mapping[str, Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
) -> CheckReport:
    """Check tables that were read.

    Args:
        recipe: a resolved recipe.
        tables: its splits.
        cleaning: their texts.
        general: documents of each probe, by its name.
        stages: training texts of each stage, by its name.
        tokenizer: of the base.
    """
    try:
        facts = data_facts(
            recipe, tables, cleaning, general=general, stages=stages, tokenizer=tokenizer
        )
    except DataError as error:
        return _unusable(error)
    results = [READABLE.passed(), *check_rows(facts)]
    tokens = {
        name: split.tokens for name, split in facts.splits.items() if split.tokens is not None
    }
    return CheckReport(
        status=worst_of(results),
        rows={name: len(split.texts) for name, split in facts.splits.items()},
        results=results,
        lengths=lengths_of(tokens, facts.max_length),
        cleaned=cleaning.counts,
    )


def refuse_failed(report: CheckReport) -> None:
    """Stop where a check has failed.

    Raises:
        DataError: the numbers would be wrong.
        LeakageError: they would be wrong by leakage alone.
    """
    failed = report.with_status("fail")
    if not failed:
        return
    lines = [f"{result.code}: {result.message} {result.advice}" for result in failed]
    lines.append(
        "Nothing was trained. 'peftune check' shows all that is worth knowing of the data."
    )
    raise (
        LeakageError(*lines) if report.exit_code == LeakageError.exit_code else DataError(*lines)
    )


def _with_refusals(
    report: CheckReport,
    recipe: Recipe,
    tables: Mapping[SplitName, SplitTable],
    cleaning: Cleaning,
) -> CheckReport:
    """Add what a run would refuse besides, such as too few rows to hold any out."""
    if report.exit_code == DataError.exit_code:
        return report
    try:
        task = task_of(tables, recipe.data, recipe.task, cleaning=cleaning)
        refuse_label_mismatch(recipe.task, task.labels, recipe.training)
    except DataError as error:
        results = [_refused(error), *report.results[1:]]
        return CheckReport(worst_of(results), report.rows, results, report.lengths, report.cleaned)
    return report


def _numbered(tables: Mapping[SplitName, SplitTable]) -> dict[SplitName, SplitTable]:
    """Return tables without a column of ids, so that rows are called by their numbers."""
    return {
        split: dataclasses.replace(
            table, table=table.table.drop_columns(set(table.table.column_names) & {"id"})
        )
        for split, table in tables.items()
    }


def _unusable(error: DataError, *, label_noise: bool = False) -> CheckReport:
    return _failed(_refused(error), label_noise=label_noise)


def _failed(result: CheckResult, *, label_noise: bool) -> CheckReport:
    report = CheckReport("fail", {}, [result])
    return without_label_noise(report) if label_noise else report


def _refused(error: DataError) -> CheckResult:
    return READABLE.found(str(error), {})
