"""Run a recipe: check, train, evaluate, measure forgetting, save, report."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import TrainerCallback

from peftune.adapters.initialization import Initialization, initialize
from peftune.adapters.saving import Rounding, round_weights, save
from peftune.bundled import is_bundled
from peftune.data.cleaning import text_steps
from peftune.data.in_memory import RowsInMemory, kept_rows
from peftune.data.rows import Rows
from peftune.data.task_data import Task
from peftune.data.text_hashes import RowSketch
from peftune.errors import UsageError
from peftune.experiments.folds import cross_validate, is_cross_validated
from peftune.experiments.path import (
    PathCallback,
    end_of_path,
    path_at_checkpoints,
    path_at_strengths,
)
from peftune.experiments.report import Forgetting, Run, summarized
from peftune.experiments.run_evidence import probe_records, task_record, write_evidence
from peftune.experiments.run_folder import (
    BASE,
    CHECKPOINTS,
    PREDICTIONS,
    REPORT,
    claim_folder,
    failure_reported,
    owned_run,
    write_json,
    write_lines,
)
from peftune.experiments.run_inputs import (
    Inputs,
    environment_of,
    facts_of,
    identity_of,
    read_inputs,
)
from peftune.experiments.run_scores import Scored, cost_of, decision_thresholds, leaked_rows, score
from peftune.experiments.stages import StageEnd, blamed, run_stages
from peftune.files.reading import given_path
from peftune.findings import CheckReport
from peftune.findings.check import find_in_run
from peftune.findings.learning import warmup_ahead
from peftune.forgetting.before_and_after import Before, Measured, measure_before, measure_tuned
from peftune.forgetting.callback import ForgettingCallback
from peftune.forgetting.measurement import ProbeText
from peftune.models.architecture import is_whole_model
from peftune.models.prepare import preparation_of
from peftune.progress import stage, working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.recipe.schema import DataSection
from peftune.strategies import StrategyChoice
from peftune.tasks.scores import Learning, learned_something
from peftune.training.callbacks import refuse_missing_trackers
from peftune.training.train import train


def round_for_storage(model: nn.Module, recipe: Recipe, task: Task) -> Rounding | None:
    """Round trainable parameters to the recipe's storage type, unless a predicted label changes.

    Before anything is scored, so that every number of a report is of what is shared. The labels
    that must not change are those of the validation rows.

    Returns:
        What came of it; None where the recipe stores float32.
    """
    if recipe.save.dtype == "float32":
        return None
    thresholds = decision_thresholds(model, recipe.training, task)
    return round_weights(model, task.validation.texts, thresholds=thresholds)


def save_artifact(
    model: nn.Module,
    recipe: Recipe,
    scored: Scored,
    forgetting: Forgetting,
    *,
    task: Task,
    folder: Path,
    rounding: Rounding | None,
) -> Path:
    """Save the artifact, with its score on rows that did not leak, into `adapter/` or `model/` of a run folder."""
    name = recipe.data.dataset_name or recipe.data.train_file or ""
    data = name if "://" not in name and not Path(name).is_absolute() else Path(name).name
    return save(
        model,
        folder / ("model" if is_whole_model(model) else "adapter"),
        task=task_record(
            scored.clean,
            data=data,
            columns=_columns(recipe.data),
            trained_on=_trained_on(recipe.data, task),
            leaked=scored.learning.n - scored.clean.n,
        ),
        forgetting=probe_records(forgetting),
        label_thresholds=scored.thresholds,
        dtype="float32" if rounding is None else rounding.dtype,
        clean=text_steps(recipe.data.clean),
    )


def _trained_on(section: DataSection, task: Task) -> dict[str, Any]:
    """Return the training data's rows, hash, and data set on the hub."""
    name = section.dataset_name
    is_here = name is None or is_bundled(name) or Path(name).exists()
    return {
        "rows": len(task.train),
        "data_fingerprint": task.fingerprint(),
        "hub_dataset": None if is_here else name,
        "sketches": {
            split: RowSketch.of(rows.texts).written
            for split, rows in (("train", task.train), ("validation", task.validation))
        },
    }


def _columns(section: DataSection) -> dict[str, Any]:
    """Return the columns of texts and labels, as in the recipe."""
    names = {"text_column", "text_pair_column", "template", "label_column"}
    return {
        key: value
        for key, value in section.model_dump(mode="json", include=names).items()
        if value
    }


logger = logging.getLogger(__name__)


@working("running the recipe")
def run(
    recipe: str | Path | Recipe,
    *,
    overrides: Overrides = (),
    strategy: StrategyChoice | None = None,
    output: str | Path | None = None,
    data: RowsInMemory | None = None,
) -> Run:
    """Run one recipe with one strategy and one seed.

    A folder that holds an unfinished run of the same recipe is resumed from its last whole
    checkpoint; a finished one is read, not run again. One process at a time runs in a folder.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments, such as `training.seed=1`; or a mapping of such keys to
            values.
        strategy: put in the place of the recipe's own: `peftune.LoRA(r=4)`, or a name, which
            keeps the hyper-parameters that the recipe sets and that both strategies have.
        output: run folder, in the place of the recipe's `output_dir`.
        data: rows in the place of the recipe's own: a pandas DataFrame, a `datasets` data set, or
            a dict with one for each split. They are kept in the folder's `data/`.

    Returns:
        The run, as written to the folder's `report.json`.

    Raises:
        PeftuneError: with one line that says what is wrong and what to do.
    """
    _refuse_several_processes()
    chosen = resolve(read_recipe(recipe, overrides, strategy=strategy))
    folder = given_path(output, "output") if output is not None else Path(chosen.output_dir)
    with owned_run(folder):
        rows = nullcontext(chosen.data) if data is None else kept_rows(data, chosen.data, folder)
        with rows as section:
            chosen = chosen.model_copy(update={"data": section})
            opened = _open(chosen, folder)
        return _carry_out(chosen, folder, opened)


@dataclass(frozen=True, slots=True)
class _Opened:
    """Inputs of a run, and the finished run if its folder holds one."""

    task: Task
    texts: Sequence[ProbeText]
    inputs: Inputs
    checks: CheckReport
    finished: Run | None


def _run(recipe: Recipe, folder: Path) -> Run:
    """Run a resolved recipe into a folder, its stages first."""
    with owned_run(folder):
        return _carry_out(recipe, folder, _open(recipe, folder))


def _open(recipe: Recipe, folder: Path) -> _Opened:
    with stage("reading and checking the data"):
        task, texts, inputs, checks = read_inputs(recipe)
    return _Opened(task, texts, inputs, checks, claim_folder(folder, recipe, inputs))


def _carry_out(recipe: Recipe, folder: Path, opened: _Opened) -> Run:
    finished = opened.finished
    if finished is not None:
        logger.info("'%s' holds this run already, finished; it is not run again", folder)
        return finished
    with failure_reported(folder):
        if is_cross_validated(recipe):
            result = cross_validate(recipe, opened.task, opened.inputs, folder, _run)
            result = dataclasses.replace(result, checks=opened.checks)
        else:
            last, stage_ends = run_stages(recipe, folder, _run)
            result = _execute(last, opened, folder, stage_ends)
    write_json(result.as_json(), folder / REPORT)
    return result


def _execute(recipe: Recipe, opened: _Opened, folder: Path, stage_ends: Sequence[StageEnd]) -> Run:
    refuse_missing_trackers(recipe.training.report_to)
    task, texts, inputs = opened.task, opened.texts, opened.inputs
    model = initialize(Initialization.of(recipe, task.labels, base_folder=folder / BASE))
    before = measure_before(model, texts)
    evaluation_rows, leaked = task.evaluation[1], leaked_rows(task)
    _announce(recipe, task)
    training = train(
        model,
        task,
        recipe.training,
        checkpoints=folder / CHECKPOINTS,
        run_identity=inputs.sha256,
        run_name=f"{recipe.name}-{recipe.strategy.name}-seed{recipe.training.seed}",
        regularizers=recipe.forgetting.regularizers,
        callbacks=_watching(recipe, evaluation_rows, leaked, texts, before),
    )
    with stage("evaluating and measuring baselines"):
        rounding = round_for_storage(model, recipe, task)
        scored = score(model, task, training, recipe.training, leaked)
    learning = scored.learning
    measured = measure_tuned(model, texts, before)
    forgetting = _forgotten(
        model, recipe, texts, measured, learning=scored.clean, stage_ends=stage_ends
    )
    if recipe.forgetting.path is not None:
        way = path_at_strengths(
            model,
            recipe.forgetting.path,
            rows=evaluation_rows,
            texts=texts,
            measured=measured,
            end=end_of_path(learning, forgetting, scored.leaked),
            leaked=leaked,
        )
        way += path_at_checkpoints(
            training.curve, texts, assumed=before.measured, settled=measured.before.measured
        )
        forgetting = dataclasses.replace(forgetting, path=tuple(way))
    artifact = save_artifact(
        model, recipe, scored, forgetting, task=task, folder=folder, rounding=rounding
    )
    write_lines(scored.lines, folder / PREDICTIONS)
    write_evidence(evaluation_rows, texts, measured, folder, scored.notes)
    facts = facts_of(recipe, task, scored.clean, forgetting, training, rounding=rounding)
    return Run(
        folder=folder,
        run=identity_of(recipe, model, inputs, training),
        learning=learning,
        forgetting=forgetting,
        cost=cost_of(
            model,
            training,
            artifact,
            texts=evaluation_rows.texts if task.task_type.has_head else (),
        ),
        findings=find_in_run(facts),
        environment=environment_of(task, recipe.training.seed, training),
        checks=dataclasses.replace(opened.checks, leaked_score=scored.leaked),
    )


def _announce(recipe: Recipe, task: Task) -> None:
    """Log that training begins, and findings that are known before it."""
    packed = not task.task_type.has_head
    for ahead in warmup_ahead(recipe.training, None if packed else len(task.train)):
        logger.warning("%s: %s %s", ahead.severity, ahead.message, ahead.advice)
    logger.info("training '%s' on %d rows", recipe.strategy.name, len(task.train))


def _forgotten(
    model: nn.Module,
    recipe: Recipe,
    texts: Sequence[ProbeText],
    measured: Measured,
    *,
    learning: Learning,
    stage_ends: Sequence[StageEnd],
) -> Forgetting:
    """Return what was forgotten, and in which stage."""
    start = preparation_of(model).initialized_from
    forgetting = summarized(texts, measured, learned=learned_something(learning))
    stages = blamed(
        texts,
        measured,
        stage_ends,
        name=recipe.name,
        task=recipe.task,
        start=None if start is None else start.task_name,
    )
    return dataclasses.replace(forgetting, stages=tuple(stages))


def _watching(
    recipe: Recipe,
    evaluation_rows: Rows,
    leaked: NDArray[np.bool_],
    texts: Sequence[ProbeText],
    before: Before,
) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    watched, path = recipe.forgetting.during_training, recipe.forgetting.path
    if watched is not None:
        budget = recipe.forgetting.budget
        callback = ForgettingCallback(
            watched.probe, budget=budget, over_budget=watched.over_budget
        )
        callbacks.append(callback)
    if path is not None and path.checkpoints:
        callbacks.append(PathCallback(evaluation_rows, leaked, texts, before.measured))
    return callbacks


def _refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        message = "peftune run uses one process. For several, call peftune.prepare in a script with transformers' Trainer and start it with torchrun."
        raise UsageError(message)
