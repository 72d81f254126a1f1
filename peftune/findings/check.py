"""Check the data of a recipe before anything is trained on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from transformers import PreTrainedTokenizerBase

from peftune.data.cleaning import Cleaning, clean_tables
from peftune.data.documents import load_documents
from peftune.data.similarity import refuse_same_splits
from peftune.data.split_tables import SplitTable, read_split_tables
from peftune.data.task_data import load_task, task_of
from peftune.errors import DataError, LeakageError
from peftune.findings import (
    class_balance,
    duplicates,
    evidence,
    giveaways,
    label_values,
    learning,
    lengths,
    texts,
)
from peftune.findings.duplicates import same_rows
from peftune.findings.facts import DataFacts, RunFacts, data_facts
from peftune.findings.finding import CheckReport, CheckResult, Finding, FindingType, worst_of
from peftune.findings.label_noise import (
    LabelNoiseReport,
    refuse_label_noise,
    with_label_noise,
    without_label_noise,
)
from peftune.findings.lengths import lengths_of
from peftune.models.fingerprint import find_sound_base
from peftune.models.tokenizer import load_tokenizer
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.recipe.data import SplitName

READABLE = FindingType(
    code="unusable-data",
    scope="data",
    worst="fail",
    looks_for="Files, columns or rows cannot be used: not UTF-8, a row with too few cells, an open quote, a line that is not JSON, a column that is missing or there twice, one class alone, too few rows to hold any out.",
    threshold="What a run would refuse, with place and remedy.",
    remedy="Mend the file, or the keys of data that name it.",
    sound="All rows can be read, split and learned.",
)

_IN_DATA: tuple[tuple[FindingType, Callable[[DataFacts], CheckResult | None]], ...] = (
    (texts.EMPTY, texts.find_empty),
    (texts.PLACEHOLDER, texts.find_placeholders),
    (texts.ADDRESSES, texts.find_addresses),
    (texts.HEADER, texts.find_header),
    (texts.NUMBERS, texts.find_numbers),
    (label_values.MISSING, label_values.find_missing),
    (label_values.UNKNOWN, label_values.find_unknown),
    (label_values.LOOK_ALIKE, label_values.find_look_alikes),
    (label_values.HIDDEN, label_values.find_hidden),
    (label_values.PLACEHOLDER, label_values.find_placeholders),
    (label_values.MANY, label_values.find_many),
    (label_values.NO_NUMBER, label_values.find_no_numbers),
    (label_values.CONSTANT, label_values.find_constant),
    (label_values.OUTLIER, label_values.find_outliers),
    (class_balance.ABSENT_IN_TRAIN, class_balance.find_absent_in_train),
    (class_balance.ABSENT_IN_HELD_OUT, class_balance.find_absent_in_held_out),
    (class_balance.IMBALANCE, class_balance.find_imbalance),
    (class_balance.SHIFT, class_balance.find_shift),
    (duplicates.LEAKED, duplicates.find_leaked),
    (duplicates.NEARLY_LEAKED, duplicates.find_nearly_leaked),
    (duplicates.GROUPS, duplicates.find_groups),
    (duplicates.SHARED, duplicates.find_shared),
    (duplicates.STAGES, duplicates.find_staged),
    (duplicates.DUPLICATES, duplicates.find_duplicates),
    (duplicates.NEAR_DUPLICATES, duplicates.find_near_duplicates),
    (duplicates.CONFLICT, duplicates.find_conflicts),
    (duplicates.IDS, duplicates.find_ids),
    (giveaways.TOKEN, giveaways.find_giveaways),
    (lengths.CUT, lengths.find_cut),
    (lengths.OVERLONG, lengths.find_overlong),
    (texts.MISREAD, texts.find_misread),
    (texts.LOST, texts.find_lost),
    (texts.CONTROL, texts.find_control),
    (texts.UNSEEN, texts.find_unseen),
    (texts.ESCAPED, texts.find_escaped),
    (texts.MARKUP, texts.find_html),
    (texts.LANGUAGE, texts.find_other),
)

_IN_RUN: tuple[tuple[FindingType, Callable[[RunFacts], Finding | None]], ...] = (
    (evidence.CONTROL_FAILED, evidence.find_failed_control),
    (evidence.OVER_BUDGET, evidence.find_over_budget),
    (learning.NOTHING_LEARNED, learning.find_nothing_learned),
    (learning.BELOW_BASELINE, learning.find_below_baseline),
    (evidence.FORGETTING, evidence.find_forgetting),
    (learning.OVERFITTING, learning.find_overfitting),
    (learning.UNDERFITTING, learning.find_underfitting),
    (evidence.SCORED_ON_VALIDATION, evidence.find_score_on_validation),
    (evidence.SMALL_TEST_SET, evidence.find_small_test_set),
    (class_balance.CLASS_IMBALANCE, class_balance.find_class_imbalance),
    (learning.LONG_WARMUP, learning.find_long_warmup),
    (learning.IGNORED_WARMUP, learning.find_ignored_warmup),
    (lengths.TRUNCATED_IN_RUN, lengths.find_truncation),
    (evidence.KEPT_FLOAT32, evidence.find_kept_float32),
)

FINDING_TYPES: tuple[FindingType, ...] = (
    READABLE,
    *(each for each, _ in _IN_DATA),
    *(each for each, _ in _IN_RUN),
    learning.LEARNING_RATE_AT_EDGE,
    evidence.UNSTABLE_SEEDS,
    evidence.COLLAPSED_SEEDS,
    learning.SHARED_LEARNING_RATE,
    learning.BELOW_LINEAR_PROBE,
    evidence.SEEN_ROWS,
)
"""Every kind of problem that is looked for, in data, runs, searches, comparisons and scored rows."""

CHECKS = tuple(each for each in FINDING_TYPES if each.scope == "data")
"""The checks of the data, in the order of a report."""


def find_in_data(facts: DataFacts) -> list[CheckResult]:
    """Make every check that applies to the task type, in the order of `CHECKS`."""
    return [
        find(facts) or each.passed() for each, find in _IN_DATA if facts.task_name in each.tasks
    ]


def find_in_run(facts: RunFacts) -> list[Finding]:
    """List the findings of a finished run."""
    found = (find(facts) for _, find in _IN_RUN)
    return [finding for finding in found if finding is not None]


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
        cleaning = clean_tables(tables, chosen.data, chosen.task_type, general=documents)
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
    results = [READABLE.passed(), *find_in_data(facts)]
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
        recipe.task_type.refuse_label_mismatch(task.labels, recipe.training)
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
    return READABLE.in_rows(str(error), {})
