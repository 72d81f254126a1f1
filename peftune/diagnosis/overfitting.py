"""The training rows were learned by heart."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Facts, Finding, Pitfall

_RISE = 0.05
_SPREAD = 0.5
_ERRORS = 2.0

PITFALL = Pitfall(
    code="overfitting",
    scope="run",
    looks_for="The validation loss rises while the training loss still falls: what is learned last does not hold for other rows.",
    threshold=f"The last validation loss is above its minimum by more than {_RISE:.0%} of it, and by more than {_ERRORS:g} standard errors, {_ERRORS:g} x {_SPREAD:g} / sqrt(validation rows) nats, where {_SPREAD:g} is the usual spread of a row's change between two checkpoints. A note where the checkpoint that was kept comes no later than the minimum, else a warning.",
)


def find_overfitting(facts: Facts) -> Finding | None:
    """Look whether the validation loss has left its minimum for good, and since which step."""
    validation = facts.losses("validation_loss")
    if not validation:
        return None
    begin, lowest = min(validation, key=lambda point: point[1])
    end, last = validation[-1]
    noise = _ERRORS * _SPREAD / math.sqrt(facts.validation_rows)
    if last - lowest <= max(_RISE * lowest, noise):
        return None
    falling = _training_loss_around(facts, begin)
    if falling is None or falling[1] >= falling[0]:
        return None
    kept = facts.training.best_step
    harmless = kept is not None and kept <= begin
    return PITFALL.found(
        "note" if harmless else "warning",
        f"Overfitting began at step {begin}: from there to step {end} the validation loss rose from {lowest:.3f} to {last:.3f} nats, while the training loss fell from {falling[0]:.3f} to {falling[1]:.3f}. {_kept(kept)}",
        "Train for fewer epochs, set training.early_stopping_patience, lower training.learning_rate, or add rows. With training.metric_for_best_model: loss the checkpoint of the lowest validation loss is kept.",
    )


def _training_loss_around(facts: Facts, step: int) -> tuple[float, float] | None:
    """Return the training loss last logged by a step, or the first of all, and its mean after it."""
    points = facts.losses("train_loss")
    then = max([index for index, (at, _) in enumerate(points) if at <= step], default=0)
    after = [value for _, value in points[then + 1 :]]
    return (points[then][1], sum(after) / len(after)) if after else None


def _kept(step: int | None) -> str:
    where = "the last step" if step is None else f"step {step}"
    return f"The weights that were kept are those of {where}."
