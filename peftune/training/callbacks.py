"""What happens beside the steps: the bar that a person sees, and the stop when training diverges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import SaveStrategy

from peftune.errors import TrainingError
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
