"""What happens beside the steps: the bar that a person sees, and the stop when training diverges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import (
    is_mlflow_available,
    is_tensorboard_available,
    is_trackio_available,
    is_wandb_available,
)
from transformers.trainer_utils import SaveStrategy

from peftune.errors import TrainingError, UsageError
from peftune.forgetting.callback import KEY
from peftune.progress import innermost
from peftune.training.checkpoints import refuse_little_room


class QuietProgress(ProgressCallback):
    """Show the progress bar without printing every logged value through it."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Print nothing: the curve is in the report."""


class CountedSteps(TrainerCallback):
    """Tell the stage that is open how far it is: a training its steps, an evaluation its batches."""

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        **kwargs: Any,  # noqa: ANN401, ARG002 - Trainer's signature
    ) -> None:
        """Count the step."""
        entry = innermost()
        if entry is not None:
            entry.total, entry.done = state.max_steps, state.global_step

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
        """Count the batch."""
        entry = innermost()
        if entry is not None:
            entry.advance()


class RoomForCheckpoints(TrainerCallback):
    """Refuse a training before its first step if what it will write does not fit on the disk."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        **kwargs: Any,  # noqa: ANN401 - Trainer's signature
    ) -> None:
        """Count the checkpoints that are still to be written.

        Raises:
            StorageError: there is too little room for them and the artifact.
        """
        if args.save_strategy == SaveStrategy.STEPS:
            done = state.global_step // state.save_steps
            to_come = math.ceil(state.max_steps / state.save_steps) - done
        else:
            to_come = math.ceil(state.num_train_epochs) - math.floor(state.epoch or 0)
        refuse_little_room(
            Path(args.output_dir or ""), kwargs["model"], args.optim, to_come=max(0, to_come)
        )


class StopWhenDiverged(TrainerCallback):
    """End training at the first loss that is not a number, before it is saved or evaluated."""

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002 - Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        logs: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401, ARG002 - Trainer's signature
    ) -> None:
        """Check the losses and gradient norms that Trainer logs."""
        for name, value in (logs or {}).items():
            if isinstance(value, float) and not math.isfinite(value):
                message = f"Training diverged: {name} is {value} at step {state.global_step}. Lower training.learning_rate, or check the data."
                raise TrainingError(message)


_INSTALLED: Mapping[str, Callable[[], bool]] = {
    "tensorboard": is_tensorboard_available,
    "wandb": is_wandb_available,
    "mlflow": is_mlflow_available,
    "trackio": is_trackio_available,
}


def refuse_missing_trackers(report_to: str | Sequence[str]) -> None:
    """Refuse to report to a program that is not there, before hours of training have gone by.

    Args:
        report_to: `training.report_to`.

    Raises:
        UsageError: a package is not installed; all that are missing are named.
    """
    named = (report_to,) if isinstance(report_to, str) else report_to
    missing = [name for name in named if name != "none" and not _INSTALLED[name]()]
    if missing:
        what = "packages that are" if len(missing) > 1 else "a package that is"
        message = f"training.report_to names {what} not installed: {', '.join(missing)}. Run 'pip install {' '.join(missing)}', or set training.report_to: none."
        raise UsageError(message)


def report_forgetting(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Send the forgetting of an evaluation to the programs that follow the curves.

    Trainer sends the metrics of an evaluation before its callbacks add to them.

    Args:
        trainer: has just evaluated.
        metrics: of the evaluation, `ForgettingCallback`'s values included.
    """
    found = {
        name: value
        for name, value in metrics.items()
        # A value that is no number is over any budget, but no reason to stop.
        if name.startswith(f"eval_{KEY}") and math.isfinite(value)
    }
    if found:
        trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, found)
