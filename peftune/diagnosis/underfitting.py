"""Training stopped too early, or moved too little."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from peftune.diagnosis.finding import Evaluation, Facts, Finding, Pitfall

_UNMOVED = 0.95
_STEEP = 0.5
_LAST = 1 / 3

PITFALL = Pitfall(
    code="underfitting",
    scope="run",
    looks_for="The model has not learned what the training rows could teach it.",
    threshold=f"Either the loss of training rows, and that of validation rows, ended above {_UNMOVED:.0%} of the loss of a model that knows only how frequent each label is; it began at the evaluation since which that has been so. Or both were still falling at the end: over the last third of the steps the validation loss fell at {_STEEP:.0%} or more of its mean rate from that start, though the learning rate was at its lowest. The second needs an evaluation by two thirds of the steps.",
)

_ADVICE = "Train for more epochs, or raise training.learning_rate or what the strategy may change (such as the rank r)."


def find_underfitting(facts: Facts) -> Finding | None:
    """Look whether the losses stayed where they began, or had not finished falling."""
    evaluations = facts.evaluations
    if not evaluations or facts.recipe.task != "single-label":
        return None  # what a model knows that reads nothing is worked out for one label a row
    # Weights make labels more and less frequent than they are, in every loss of the curve.
    start = frequency_loss(_weighted(facts.train_labels, facts.recipe.training.class_weights))
    return _unmoved(evaluations, start) or _unfinished(evaluations, start)


def _unmoved(evaluations: Sequence[Evaluation], start: float) -> Finding | None:
    at_start = list(
        itertools.takewhile(
            lambda evaluation: min(evaluation.training, evaluation.validation) > _UNMOVED * start,
            reversed(evaluations),
        )
    )
    if not at_start:
        return None
    begin, end = at_start[-1].step, at_start[0]
    when = f"From step {begin} to step {end.step}" if begin < end.step else f"At step {begin}"
    return PITFALL.found(
        "warning",
        f"{when} the model did no better than by knowing only how frequent each label is, which gives a loss of {start:.3f} nats: the loss ended at {end.training:.3f} on training rows and {end.validation:.3f} on validation rows.",
        _ADVICE,
        step=begin,
    )


def _unfinished(evaluations: Sequence[Evaluation], start: float) -> Finding | None:
    end = evaluations[-1]
    earlier = [one for one in evaluations if one.step <= (1 - _LAST) * end.step]
    if not earlier or end.training >= earlier[-1].training:
        return None
    then = earlier[-1]
    rate = (then.validation - end.validation) / (end.step - then.step)
    mean_rate = (start - end.validation) / end.step
    if mean_rate <= 0 or rate < _STEEP * mean_rate:
        return None
    return PITFALL.found(
        "warning",
        f"Training ended while the loss was still falling: from step {then.step} to step {end.step} from {then.training:.3f} to {end.training:.3f} nats on training rows, and from {then.validation:.3f} to {end.validation:.3f} on validation rows.",
        _ADVICE,
        step=then.step,
    )


def _weighted(counts: Mapping[str, int], weights: str | Mapping[str, float] | None) -> list[float]:
    """Count the rows of each label as the loss does; `balanced` makes all labels as frequent."""
    if isinstance(weights, str):
        return [1.0 for count in counts.values() if count]
    return [count * (weights or {}).get(name, 1.0) for name, count in counts.items() if count]


def frequency_loss(counts: Sequence[float]) -> float:
    """Return the cross-entropy of always answering with the labels' frequencies, in nats.

    It is the lowest loss without reading a text: the entropy of the labels.
    """
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts if count)
