"""Run a recipe: check, train, judge, measure forgetting, save, report."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import TrainerCallback

from peftune.artifacts.save import save
from peftune.baselines.without_model import baseline_scores
from peftune.data.rows import Rows
from peftune.data.task import Task
from peftune.diagnosis import Facts, find_pitfalls
from peftune.errors import UsageError
from peftune.forgetting.measure import ProbeText
from peftune.models.inference import predict_logits
from peftune.models.parts import is_whole_model
from peftune.models.prepare import preparation_of, prepare_model
from peftune.recipe import Recipe, read_recipe, resolve, with_strategy
from peftune.recipe.locate import anchor_paths
from peftune.runs.cost import cost_of
from peftune.runs.environment import RunEnvironment, environment
from peftune.runs.evidence import write_evidence
from peftune.runs.folder import (
    CHECKPOINTS,
    REPORT,
    claim_folder,
    failure_reported,
    write_json,
    write_predictions,
)
from peftune.runs.forgetting import CONTROL, Before, measure_before, measure_tuned, summarised
from peftune.runs.inputs import Inputs, read_inputs
from peftune.runs.path import (
    PathCallback,
    end_of_path,
    path_at_checkpoints,
    path_at_strengths,
    without_path,
)
from peftune.runs.records import probe_records, task_record
from peftune.runs.report import Forgetting, Identity, Run
from peftune.seeds import seed_streams, stream_seed
from peftune.strategies import Strategy
from peftune.training.forgetting_callback import ForgettingCallback
from peftune.training.learning import Learning, judge, learned_something
from peftune.training.trackers import refuse_missing_trackers
from peftune.training.train import TrainingResult, train

logger = logging.getLogger(__name__)


def run(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    strategy: Strategy | str | None = None,
    output: str | Path | None = None,
) -> Run:
    """Run one recipe with one strategy and one seed.

    A folder that holds an unfinished run of the same recipe is resumed from its last whole
    checkpoint; a finished one is read, not run again.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments, such as `training.seed=1`.
        strategy: put in the place of the recipe's own.
        output: run folder, in the place of the recipe's `output_dir`.

    Returns:
        The run, as written to the folder's `report.json`.

    Raises:
        PeftuneError: with one line that says what is wrong and what to do.
    """
    _refuse_several_processes()
    if isinstance(recipe, Recipe):
        chosen = anchor_paths(recipe, folder=Path.cwd(), overridden=set())
    else:
        chosen = read_recipe(recipe, overrides)
    if strategy is not None:
        chosen = with_strategy(chosen, strategy)
    chosen = resolve(chosen)
    folder = Path(output) if output is not None else Path(chosen.output_dir)
    task, texts, inputs = read_inputs(chosen)
    finished = claim_folder(folder, chosen, inputs)
    if finished is not None:
        logger.info("'%s' holds this run already, finished; it is not run again", folder)
        return finished
    with failure_reported(folder):
        result = _execute(chosen, task, texts, inputs, folder)
    write_json(result.as_json(), folder / REPORT)
    return result


def _execute(
    recipe: Recipe, task: Task, texts: Sequence[ProbeText], inputs: Inputs, folder: Path
) -> Run:
    refuse_missing_trackers(recipe.training.report_to)
    seed = recipe.training.seed
    model = prepare_model(
        recipe.model.name_or_path,
        recipe.strategy,
        labels=task.labels,
        revision=recipe.model.revision,
        max_length=recipe.model.max_length,
        seed=seed,
        use_cpu=recipe.training.use_cpu,
    )
    if texts:
        logger.info("measuring the base on %s", ", ".join(text.label for text in texts))
    before = measure_before(model, texts)
    split, judged = task.judged
    logger.info("training '%s' on %d rows", recipe.strategy.name, len(task.train))
    training = train(
        model,
        task,
        recipe.training,
        checkpoints=folder / CHECKPOINTS,
        run_identity=inputs.sha256,
        run_name=f"{recipe.name}-{recipe.strategy.name}-seed{seed}",
        regularizers=recipe.forgetting.regularizers,
        callbacks=_watching(recipe, judged, texts, before),
    )
    logits = _logits(model, judged)
    learning = judge(
        logits,
        judged.labels,
        names=task.labels,
        split=split,
        seed=stream_seed(seed, "bootstrap"),
        baselines=baseline_scores(task.train, judged),
        curve=without_path(training.curve),
    )
    if texts:
        logger.info("measuring forgetting")
    measured = measure_tuned(model, texts, before)
    forgetting = summarised(texts, measured, learned=learned_something(learning), seed=seed)
    if recipe.forgetting.path is not None:
        logger.info("measuring the way from the base to the tuned model")
        end = end_of_path(learning, forgetting)
        path = path_at_strengths(
            model, recipe.forgetting.path, rows=judged, texts=texts, measured=measured, end=end
        )
        path += path_at_checkpoints(training.curve)
        forgetting = dataclasses.replace(forgetting, path=path)
    artifact = _save(model, recipe, learning, forgetting, folder)
    write_predictions(judged, logits, task.labels, folder)
    write_evidence(judged, texts, measured, folder)
    return Run(
        folder=folder,
        run=_identity(recipe, model, inputs, training),
        learning=learning,
        forgetting=forgetting,
        cost=cost_of(model, training, artifact),
        findings=find_pitfalls(_facts(recipe, task, learning, forgetting, training)),
        environment=_environment(task, seed),
    )


def _facts(
    recipe: Recipe,
    task: Task,
    learning: Learning,
    forgetting: Forgetting,
    training: TrainingResult,
) -> Facts:
    counts = Counter(task.train.labels)
    return Facts(
        recipe=recipe,
        learning=learning,
        probes=forgetting.probes,
        control=forgetting.controls.get(CONTROL),
        training=training,
        train_labels={name: counts[index] for index, name in enumerate(task.labels)},
        validation_rows=len(task.validation),
    )


def _environment(task: Task, seed: int) -> RunEnvironment:
    return {
        **environment(),
        "seed_streams": seed_streams(seed),
        "dropped_rows": dict(task.dropped),
    }


def _watching(
    recipe: Recipe, judged: Rows, texts: Sequence[ProbeText], before: Before
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
        callbacks.append(PathCallback(judged, texts, before.measured))
    return callbacks


def _identity(
    recipe: Recipe, model: nn.Module, inputs: Inputs, training: TrainingResult
) -> Identity:
    preparation = preparation_of(model)
    return Identity(
        name=recipe.name,
        strategy=recipe.strategy.name,
        strategy_config=recipe.strategy.fields(),
        seed=recipe.training.seed,
        base_model=preparation.base.name,
        base_fingerprint=preparation.base_fingerprint,
        recipe_sha256=inputs.recipe_sha256,
        data_fingerprint=inputs.data_fingerprint,
        texts_sha256=inputs.texts_sha256,
        order_sha256=training.order_sha256,
    )


def _logits(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
    preparation = preparation_of(model)
    return predict_logits(
        model, preparation.tokenizer, rows.texts, max_length=preparation.max_length
    )


def _save(
    model: nn.Module, recipe: Recipe, learning: Learning, forgetting: Forgetting, folder: Path
) -> Path:
    name = recipe.data.dataset_name or recipe.data.train_file or ""
    data = name if "://" not in name and not Path(name).is_absolute() else Path(name).name
    return save(
        model,
        folder / ("model" if is_whole_model(model) else "adapter"),
        task=task_record(learning, data=data),
        forgetting=probe_records(forgetting),
    )


def _refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        message = "peftune run uses one process. For several, call peftune.prepare in a script with transformers' Trainer and start it with torchrun."
        raise UsageError(message)
