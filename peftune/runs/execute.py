"""Run a recipe: check, train, judge, measure forgetting, save, report."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import TrainerCallback

from peftune.artifacts.start import Beginning, begin
from peftune.checks import CheckReport
from peftune.data.in_memory import RowsInMemory, kept_rows
from peftune.data.rows import Rows
from peftune.data.task import Task
from peftune.diagnosis import find_pitfalls, warmup_ahead
from peftune.errors import UsageError
from peftune.files.paths import given_path
from peftune.forgetting.measure import ProbeText
from peftune.models.prepare import preparation_of
from peftune.progress import stage, working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.recipe.task import has_head
from peftune.runs.cost import cost_of
from peftune.runs.evidence import write_evidence
from peftune.runs.folder import (
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
from peftune.runs.folds import cross_validate, is_cross_validated
from peftune.runs.forgetting import summarised
from peftune.runs.identity import environment_of, facts_of, identity_of
from peftune.runs.inputs import Inputs, read_inputs
from peftune.runs.leaked_score import leaked_rows
from peftune.runs.measured import Before, Measured, measure_before, measure_tuned
from peftune.runs.path import (
    PathCallback,
    end_of_path,
    path_at_checkpoints,
    path_at_strengths,
)
from peftune.runs.report import Forgetting, Run
from peftune.runs.saved import round_for_storage, save_artifact
from peftune.runs.scored import score
from peftune.runs.stages import Reached, blamed, run_stages
from peftune.strategies import StrategyChoice
from peftune.tasks.learning import Learning, learned_something
from peftune.training.forgetting_callback import ForgettingCallback
from peftune.training.trackers import refuse_missing_trackers
from peftune.training.train import train

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
    """What a run reads, and the run itself where its folder holds it already."""

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
            last, reached = run_stages(recipe, folder, _run)
            result = _execute(last, opened, folder, reached)
    write_json(result.as_json(), folder / REPORT)
    return result


def _execute(recipe: Recipe, opened: _Opened, folder: Path, reached: Sequence[Reached]) -> Run:
    refuse_missing_trackers(recipe.training.report_to)
    task, texts, inputs = opened.task, opened.texts, opened.inputs
    model = begin(Beginning.of(recipe, task.labels, base_folder=folder / BASE))
    before = measure_before(model, texts)
    judged, leaked = task.judged[1], leaked_rows(task)
    _announce(recipe, task)
    training = train(
        model,
        task,
        recipe.training,
        checkpoints=folder / CHECKPOINTS,
        run_identity=inputs.sha256,
        run_name=f"{recipe.name}-{recipe.strategy.name}-seed{recipe.training.seed}",
        regularizers=recipe.forgetting.regularizers,
        callbacks=_watching(recipe, judged, leaked, texts, before),
    )
    with stage("evaluating and measuring baselines"):
        rounding = round_for_storage(model, recipe, task)
        scored = score(model, task, training, recipe.training, leaked)
    learning = scored.learning
    measured = measure_tuned(model, texts, before)
    forgetting = _forgotten(model, recipe, texts, measured, learning=scored.clean, reached=reached)
    if recipe.forgetting.path is not None:
        way = path_at_strengths(
            model,
            recipe.forgetting.path,
            rows=judged,
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
        model,
        recipe,
        scored,
        forgetting,
        task=task,
        folder=folder,
        rounding=rounding,
    )
    write_lines(scored.lines, folder / PREDICTIONS)
    write_evidence(judged, texts, measured, folder, scored.notes)
    facts = facts_of(recipe, task, scored.clean, forgetting, training, rounding=rounding)
    return Run(
        folder=folder,
        run=identity_of(recipe, model, inputs, training),
        learning=learning,
        forgetting=forgetting,
        cost=cost_of(model, training, artifact, texts=judged.texts if has_head(task.kind) else ()),
        findings=find_pitfalls(facts),
        environment=environment_of(task, recipe.training.seed, training),
        checks=dataclasses.replace(opened.checks, leaked_score=scored.leaked),
    )


def _announce(recipe: Recipe, task: Task) -> None:
    """Say that training begins, and what is known to be wrong with it before it does."""
    packed = task.kind == "language-modeling"
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
    reached: Sequence[Reached],
) -> Forgetting:
    """Say what was forgotten, and in which stage."""
    start = preparation_of(model).start
    forgetting = summarised(texts, measured, learned=learned_something(learning))
    stages = blamed(
        texts,
        measured,
        reached,
        name=recipe.name,
        task=recipe.task,
        start=None if start is None else start.task,
    )
    return dataclasses.replace(forgetting, stages=tuple(stages))


def _watching(
    recipe: Recipe,
    judged: Rows,
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
        callbacks.append(PathCallback(judged, leaked, texts, before.measured))
    return callbacks


def _refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        message = "peftune run uses one process. For several, call peftune.prepare in a script with transformers' Trainer and start it with torchrun."
        raise UsageError(message)
