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
    looks_for="The loss of validation rows rises while that of training rows still falls: what is learned last does not hold for other rows.",
    threshold=f"The last validation loss is above its minimum by more than {_RISE:.0%} of it, and by more than {_ERRORS:g} standard errors, {_ERRORS:g} x {_SPREAD:g} / sqrt(validation rows) nats, where {_SPREAD:g} is the usual spread of a row's change between two checkpoints (of a regression half of the minimum); the loss of the training rows that are scored at every evaluation is lower than it was there. It began at the minimum. A note where the checkpoint that was kept comes no later than the minimum, else a warning.",
)


def find_overfitting(facts: Facts) -> Finding | None:
    """Look whether the validation loss has left its minimum for good, and since which step."""
    evaluations = facts.evaluations
    if not evaluations:
        return None
    begin = min(evaluations, key=lambda evaluation: evaluation.validation)
    end = evaluations[-1]
    number = facts.recipe.task == "regression"
    # Squared errors have the scale of the labels; their spread is of the order of their mean.
    spread = _SPREAD * (begin.validation if number else 1)
    noise = _ERRORS * spread / math.sqrt(facts.validation_rows)
    if end.validation - begin.validation <= max(_RISE * begin.validation, noise):
        return None
    if end.training >= begin.training:
        return None
    kept = facts.training.best_step
    form, unit = (".4g", "") if number else (".3f", " nats")
    harmless = kept is not None and kept <= begin.step
    return PITFALL.found(
        "note" if harmless else "warning",
        f"Overfitting began at step {begin.step}: from there to step {end.step} the loss of validation rows rose from {begin.validation:{form}} to {end.validation:{form}}{unit}, while that of training rows fell from {begin.training:{form}} to {end.training:{form}}. {_kept(kept)}",
        "Train for fewer epochs, set training.early_stopping_patience, lower training.learning_rate, or add rows. With training.metric_for_best_model: loss the checkpoint of the lowest validation loss is kept.",
        step=begin.step,
    )


def _kept(step: int | None) -> str:
    where = "the last step" if step is None else f"step {step}"
    return f"The weights that were kept are those of {where}."
