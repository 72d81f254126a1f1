"""What happens beside the steps: the bar that a person sees, and the stop when training diverges."""

from __future__ import annotations

import math
from typing import Any

from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from peftune.errors import TrainingError
from peftune.progress import innermost


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
