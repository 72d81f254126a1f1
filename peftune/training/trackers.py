"""Programs that follow curves: TensorBoard, Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from transformers import Trainer
from transformers.integrations.integration_utils import (
    is_mlflow_available,
    is_tensorboard_available,
    is_trackio_available,
    is_wandb_available,
)

from peftune.errors import UsageError
from peftune.training.forgetting_callback import KEY

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
