"""Training stopped too early, or moved too little."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Facts, Finding, Pitfall

_UNMOVED = 0.95
_STEEP = 0.5
_LAST = 1 / 3

PITFALL = Pitfall(
    code="underfitting",
    scope="run",
    looks_for="The model has not learned what the training rows could teach it.",
    threshold=f"Either the training and the validation loss ended above {_UNMOVED:.0%} of the loss of a model that knows only how frequent each label is (not judged with regularizers, which the training loss includes). Or both were still falling at the end: over the last third of the steps the validation loss fell at {_STEEP:.0%} or more of its mean rate from that start, though the learning rate was at its lowest. The second needs an evaluation by two thirds of the steps.",
)

_ADVICE = "Train for more epochs, or raise training.learning_rate or what the strategy may change (such as the rank r)."


def find_underfitting(facts: Facts) -> Finding | None:
    """Look whether the losses stayed where they began, or had not finished falling."""
    validation, training = facts.losses("validation_loss"), facts.losses("train_loss")
    # Only of single labels is it known what they cost without reading a text.
    if facts.learning.task != "single-label" or not validation or not training:
        return None
    start = frequency_loss(list(facts.train_labels.values()))
    end, last = validation[-1]
    recent = [value for step, value in training if step > (1 - _LAST) * end] or [training[-1][1]]
    reached = sum(recent) / len(recent)
    if not facts.recipe.forgetting.regularizers and min(last, reached) > _UNMOVED * start:
        return PITFALL.found(
            "warning",
            f"The training loss ended at {reached:.3f} and the validation loss at {last:.3f} nats; knowing only how frequent each label is gives {start:.3f}.",
            _ADVICE,
        )
    then = next((point for point in reversed(validation) if point[0] <= (1 - _LAST) * end), None)
    earlier = [value for step, value in training if step <= (1 - _LAST) * end]
    if then is None or not earlier or reached >= earlier[-1]:
        return None
    rate, mean_rate = (then[1] - last) / (end - then[0]), (start - last) / end
    if mean_rate <= 0 or rate < _STEEP * mean_rate:
        return None
    return PITFALL.found(
        "warning",
        f"The validation loss was still falling when training ended: {then[1]:.3f} nats at step {then[0]}, {last:.3f} at step {end}.",
        _ADVICE,
    )


def frequency_loss(counts: list[int]) -> float:
    """Return the cross-entropy of always answering with the labels' frequencies, in nats.

    It is the lowest loss without reading a text: the entropy of the labels.
    """
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts if count)
