"""One trial: train with the values that the sampler chose, and score the validation rows."""

from __future__ import annotations

import gc
import json
import math
import signal
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from optuna import Trial, TrialPruned
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import Self

from peftune.adapters.initialization import Initialization, initialize
from peftune.data.task_data import Task
from peftune.errors import TrainingError
from peftune.recipe import Recipe
from peftune.recipe.schema import Dimension
from peftune.recipe.search_space import Space
from peftune.training.train import TrainingResult, train
from peftune.training.trainer import rows_read

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupts:
    """Let a signal that ends the process wait, inside a `with` block, until somebody asks for it.

    An exception out of nowhere is lost where Python clears garbage away, of which the storage
    leaves much, and breaks optuna where it is writing. So the first signal ends a trial at its next
    step, and only a second one ends it at once. What the signal does is up to whoever handled it before.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._pending: int | None = None
        self._acted = False

    def __enter__(self) -> Self:
        """Listen; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back.

        Raises:
            BaseException: see `check`.
        """
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None and not self._acted:
            self.check()  # what came after the last check is not lost

    def check(self) -> None:
        """Act on a signal that has come.

        Raises:
            KeyboardInterrupt: or what else the earlier handler raises.
        """
        if self._pending is not None:
            self._acted = True
            self._before[self._pending](self._pending, None)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._pending is not None:
            self._before[number](number, frame)
        self._pending = number


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
        watch: reports each evaluation, and ends training when the trial is given up.
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
        TrainingError: nothing was scored, or the metric is no number.
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
    """Report every evaluation to the study, and give the trial up when its pruner says so.

    Args:
        trial: the trial.
        metric: what the study improves.
        interrupts: asked after every batch, of training and of evaluation.
    """

    def __init__(self, trial: Trial, *, metric: str, interrupts: Interrupts) -> None:
        self.examples = 0
        self._trial = trial
        self._metric = metric
        self._interrupts = interrupts

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        **kwargs: Any,  # noqa: ANN401, ARG002 - Trainer's signature
    ) -> None:
        """Count the rows that were read."""
        self._interrupts.check()
        self.examples = rows_read(state)

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
        """Let an interrupt through."""
        self._interrupts.check()

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
