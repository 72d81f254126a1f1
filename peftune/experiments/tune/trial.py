"""One trial: train with the values that the sampler chose, and score the validation rows."""

from __future__ import annotations

import gc
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from optuna import Trial, TrialPruned
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peftune.adapters.initialization import Initialization, initialize
from peftune.data.task_data import Task
from peftune.errors import TrainingError
from peftune.recipe import Recipe
from peftune.recipe.schema import Dimension
from peftune.recipe.search_space import Space
from peftune.training.train import TrainingResult, train
from peftune.training.trainer import rows_read


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Ask the sampler for a value of every key."""
    return {key: _suggested(trial, key, dimension) for key, dimension in space.items()}


def decoded(parameters: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Turn stored values into those of a recipe, in the order of the space."""
    return {
        key: choices_of(dimension)[parameters[key]]
        if dimension.choices is not None
        else parameters[key]
        for key, dimension in space.items()
        if key in parameters
    }


def encoded(value: Any, dimension: Dimension) -> Any:  # noqa: ANN401 - any recipe value
    """Turn a value of a recipe into what is stored; None where it lies outside of the range."""
    if dimension.choices is not None:
        plain = json.loads(_written(value))
        same = (text for text, choice in choices_of(dimension).items() if _equal(choice, plain))
        return next(same, None)
    if not _is_number(value) or dimension.low is None or dimension.high is None:
        return None
    if not dimension.low <= value <= dimension.high:
        return None
    steps = (value - dimension.low) / (dimension.step or (1 if dimension.whole else math.inf))
    if not math.isclose(steps, round(steps), abs_tol=1e-9):
        return None
    return int(value) if dimension.whole else float(value)


def choices_of(dimension: Dimension) -> dict[str, Any]:
    """Return the choices by how they are stored: optuna keeps text and numbers, recipes also lists."""
    return {_written(choice): choice for choice in dimension.choices or ()}


def run_trial(recipe: Recipe, task: Task, watch: WatchTrial) -> TrainingResult:
    """Train as a run would, keeping no checkpoint and measuring no forgetting.

    Args:
        recipe: resolved, with the values to try.
        task: rows without the test.
        watch: reports each evaluation, and ends training when the trial is stopped early.
    """
    gc.collect()  # the model of a failed trial lives as long as its traceback
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        model = initialize(
            Initialization.of(recipe, task.labels, base_folder=Path(folder) / "base")
        )
        return train(
            model,
            task,
            recipe.training.model_copy(update={"report_to": "none"}),
            checkpoints=Path(folder) / "checkpoints",
            run_identity="trial",
            keep_checkpoints=False,
            regularizers=recipe.forgetting.regularizers,
            callbacks=[watch],
            score_train_sample=False,
        )


def value_of(result: TrainingResult, metric: str) -> float:
    """Return the metric of the checkpoint that a run would keep.

    Raises:
        TrainingError: nothing was scored, or the metric is not a number.
    """
    for point in result.curve:
        value = point.get(f"validation_{metric}")
        if point.get("step") == result.best_step and value is not None:
            if math.isfinite(value):
                return float(value)
            message = f"Training diverged: the validation {metric} is {value}."
            raise TrainingError(message)
    message = f"No evaluation gave '{metric}'. Train longer, or choose another tune.metric."
    raise TrainingError(message)


class WatchTrial(TrainerCallback):
    """Report every evaluation to the study, and stop the trial when its pruner says so.

    Args:
        trial: the trial.
        metric: what the study improves.
    """

    def __init__(self, trial: Trial, *, metric: str) -> None:
        self.examples = 0
        self._trial = trial
        self._metric = metric

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        **kwargs: Any,  # noqa: ANN401, ARG002 - Trainer's signature
    ) -> None:
        """Count the rows that were read."""
        self.examples = rows_read(state)

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002 - Trainer's signature
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - Trainer's signature
    ) -> None:
        """Report the metric after so many rows: batches of any size are compared at equal data.

        Raises:
            TrialPruned: the curve lies below those of earlier trials. The last evaluation ends no
                trial, for there is nothing left to save.
        """
        value = kwargs["metrics"].get(f"eval_{self._metric}")
        if value is None:
            message = f"'{self._metric}' is not defined on the validation rows: a label has none. Choose another tune.metric, or add rows."
            raise TrainingError(message)
        self._trial.report(value, step=self.examples)
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if not ends and self._trial.should_prune():
            raise TrialPruned


def _suggested(trial: Trial, key: str, dimension: Dimension) -> Any:  # noqa: ANN401 - any recipe value
    if dimension.choices is not None:
        choices = choices_of(dimension)
        return choices[trial.suggest_categorical(key, list(choices))]
    low, high, step = dimension.low, dimension.high, dimension.step
    if low is None or high is None:
        message = f"the range of {key} has no ends"
        raise ValueError(message)
    if dimension.whole:
        return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=dimension.log)
    return trial.suggest_float(key, low, high, step=step, log=dimension.log)


def _equal(first: object, second: object) -> bool:
    """Compare as YAML does: 16 is 16.0, but 1 is not true."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(value: object) -> str:
    return json.dumps(value)
