"""Findings about training: overfitting, underfitting, baselines, learning rate and warm-up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from peftune.errors import UsageError
from peftune.findings.facts import Evaluation, RunFacts
from peftune.findings.finding import Finding, FindingType
from peftune.recipe.training import TrainingSection
from peftune.stats.intervals import Interval
from peftune.stats.scores import ONE_SIDED, better_p_value
from peftune.tasks.scores import Learning, learned_something, score_of, title_of_metric

_RISE = 0.05
_SPREAD = 0.5
_ERRORS = 2.0

OVERFITTING = FindingType(
    code="overfitting",
    scope="run",
    looks_for="The loss of validation rows rises while that of training rows still falls: what is learned last does not hold for other rows.",
    threshold=f"The last validation loss is above its minimum by more than {_RISE:.0%} of it, and by more than {_ERRORS:g} standard errors, {_ERRORS:g} x {_SPREAD:g} / sqrt(validation rows) nats, where {_SPREAD:g} is the usual spread of a row's change between two checkpoints (of a regression half of the minimum); the loss of the training rows that are scored at every evaluation is lower than it was there. It began at the minimum. A note where the checkpoint that was kept comes no later than the minimum, else a warning.",
)


def find_overfitting(facts: RunFacts) -> Finding | None:
    """Check whether the validation loss has left its minimum for good, and since which step."""
    evaluations = facts.evaluations
    if not evaluations:
        return None
    begin = min(evaluations, key=lambda evaluation: evaluation.validation)
    end = evaluations[-1]
    number = facts.recipe.task_type.numeric
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
    return OVERFITTING.found(
        "note" if harmless else "warning",
        f"Overfitting began at step {begin.step}: from there to step {end.step} the loss of validation rows rose from {begin.validation:{form}} to {end.validation:{form}}{unit}, while that of training rows fell from {begin.training:{form}} to {end.training:{form}}. {_kept(kept)}",
        "Train for fewer epochs, set training.early_stopping_patience, lower training.learning_rate, or add rows. With training.metric_for_best_model: loss the checkpoint of the lowest validation loss is kept.",
        step=begin.step,
    )


def _kept(step: int | None) -> str:
    where = "the last step" if step is None else f"step {step}"
    return f"The weights that were kept are those of {where}."


_UNMOVED = 0.95
_STEEP = 0.5
_LAST = 1 / 3

UNDERFITTING = FindingType(
    code="underfitting",
    scope="run",
    looks_for="The model has not learned what the training rows could teach it.",
    threshold=f"Either the loss of training rows, and that of validation rows, ended above {_UNMOVED:.0%} of the loss of a model that knows only how frequent each label is; it began at the evaluation since which that has been so. Or both were still falling at the end: over the last third of the steps the validation loss fell at {_STEEP:.0%} or more of its mean rate from that start, though the learning rate was at its lowest. The second needs an evaluation by two thirds of the steps.",
)

_ADVICE = "Train for more epochs, or raise training.learning_rate or what the strategy may change (such as the rank r)."


def find_underfitting(facts: RunFacts) -> Finding | None:
    """Check whether the losses stayed where they began, or had not finished falling."""
    evaluations = facts.evaluations
    if not evaluations or not facts.recipe.task_type.one_label:
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
    return UNDERFITTING.found(
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
    return UNDERFITTING.found(
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


NOTHING_LEARNED = FindingType(
    code="nothing-learned",
    scope="run",
    looks_for="The model predicts no better than is possible without reading the text.",
    threshold="The score that the checkpoint is chosen by (`training.metric_for_best_model`) is not significantly better, one-sided at 2.5%, than the best that is possible without reading: the rule of the verdict. Scores of labels: 1,999 permutations of the rows (399 of more than 10,000 rows), against the best constant answer and, for macro F1, guessing by frequency, which has one by the number of labels. Regression: the errors against those of the best constant, or the correlation against 0. Language modeling: the loss against the base's.",
)


def find_nothing_learned(facts: RunFacts) -> Finding | None:
    """Check whether the score that chose the checkpoint is more than can be had without reading."""
    learning = facts.learning
    if learned_something(learning):
        return None
    return NOTHING_LEARNED.found(
        "warning",
        _seen(learning),
        f"Raise training.learning_rate or num_train_epochs, or check the labels; forgetting says nothing without learning.{_ranks(learning)}",
    )


def _seen(learning: Learning) -> str:
    if not learning.task_type.has_head:
        return f"The loss of {learning.loss:.4f} on the domain's own text is not clearly below the base's."
    significance = learning.significance
    if significance is None:
        return f"The loss of {learning.loss:.4f} is not clearly better than what is possible without reading."
    value = score_of(learning, significance.metric)
    shown = "" if value is None else f" of {value:.3f}"
    return f"The {title_of_metric(significance.metric)}{shown} is not clearly better than the {significance.without_reading:.3f} that is possible without reading (p = {significance.p_value:.2g})."


def _ranks(learning: Learning) -> str:
    """Point to probabilities that rank rows although the labels are no better than chance."""
    interval = learning.ci95.get("roc_auc")
    value = learning.metrics.get("roc_auc")
    if interval is None or value is None or interval[0] <= 0.5:  # noqa: PLR2004 - a coin
        return ""
    mend = (
        "training.label_threshold: validation"
        if learning.task_type.many_labels
        else "training.class_weights: balanced"
    )
    return f" The probabilities do rank rows (ROC AUC {value:.3f}), but the decision threshold is wrong: {mend} moves it, and training.metric_for_best_model: roc_auc asks for the ranking."


_BASELINE = "tfidf_logistic_regression"

BELOW_BASELINE = FindingType(
    code="below-baseline",
    scope="run",
    looks_for="A classifier that counts words, and takes a second to train, does as well.",
    threshold=f"The model is significantly better than TF-IDF with logistic regression on the same rows neither in accuracy (exact McNemar test) nor in macro F1 (the answers of the two swapped at random), both one-sided at {ONE_SIDED:.1%}. Not reported where nothing was learned, which says more.",
)


def find_below_baseline(facts: RunFacts) -> Finding | None:
    """Check whether accuracy or macro F1 is significantly above TF-IDF with logistic regression.

    Balanced weights, and a label that is rare, set the two against each other.
    """
    learning, scores = facts.learning, facts.learning.baselines.get(_BASELINE)
    if not learning.task_type.one_label or scores is None or "wrong_alone" not in scores:
        return None
    if not learned_something(learning):
        return None
    gained, lost = int(scores["wrong_alone"]), int(scores["right_alone"])
    p_value = better_p_value(gained, lost)
    if min(p_value, scores.get("macro_f1_p_value", 1.0)) <= ONE_SIDED:
        return None
    return BELOW_BASELINE.found(
        "warning",
        f"The accuracy of {learning.accuracy:.3f} is not significantly above the {scores['accuracy']:.3f} of TF-IDF with logistic regression: of {learning.n} rows {gained} are right that it has wrong, and {lost} wrong that it has right (p = {p_value:.3f}).",
        "Train longer, on more rows or with another training.learning_rate, take a larger base, or use the word counts.",
    )


BELOW_LINEAR_PROBE = FindingType(
    code="below-linear-probe",
    scope="comparison",
    looks_for="`head-only` is less accurate than the linear probe of the same frozen base: its head was not trained to its end.",
    threshold="The paired 95% interval of its accuracy minus the probe's, on the same rows, lies below zero. Both are a linear head on the same frozen base and learn from the same rows, so they should agree; the probe is fitted until it no longer changes.",
)


def below_linear_probe(
    accuracies: Sequence[float], probe: float, apart: Interval | None
) -> Finding | None:
    """Check whether a trained head lies clearly below the head that was fitted to the same base.

    Args:
        accuracies: of `head-only`, one a seed.
        probe: accuracy of the linear probe on the same rows.
        apart: paired 95% interval of the difference, `head-only` minus the probe; None where there
            is none.
    """
    if apart is None or apart[1] >= 0:
        return None
    shown = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return BELOW_LINEAR_PROBE.found(
        "warning",
        f"head-only reaches an accuracy of {shown}, the linear probe of the same frozen base {probe:.3f}, {-apart[1]:.3f} to {-apart[0]:.3f} more on the same rows: the two are the same head on the same features and should agree, so head-only was trained too little.",
        "Raise compare.training.head-only.learning_rate (ten times what lora has is usual) or training.num_train_epochs.",
    )


_EDGE = 0.05

LEARNING_RATE_AT_EDGE = FindingType(
    code="learning-rate-at-edge",
    scope="tuning",
    looks_for="The best learning rate may lie outside the range that was searched.",
    threshold=f"It lies within {_EDGE:.0%} of an end of the range (of its logarithm, where that was searched). A draw that knows nothing falls there once in ten, so a single search may be wrong.",
)


def learning_rate_at_edge(
    value: float, low: float, high: float, *, log: bool = True
) -> Finding | None:
    """Check whether the best learning rate of a search lies at an end of its range.

    Args:
        value: the best learning rate.
        low: lower end of the range.
        high: upper end of the range.
        log: whether the range was searched by its logarithm.

    Raises:
        UsageError: the range is empty, has no logarithm, or does not hold the value.
    """
    if not low <= value <= high or low == high or (log and low <= 0):
        message = f"A learning rate lies in a range from a lower to a higher value, above 0 for a logarithm (got {value:g} in {low:g} to {high:g})."
        raise UsageError(message)
    scale = math.log if log else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    if _EDGE < place < 1 - _EDGE:
        return None
    end, further = ("lower", "lower") if place <= _EDGE else ("upper", "higher")
    return LEARNING_RATE_AT_EDGE.found(
        "warning",
        f"The best learning rate, {value:g}, lies at the {end} end of the range that was searched, {low:g} to {high:g}.",
        f"Search {further} learning rates too: the best one may lie outside.",
    )


SHARED_LEARNING_RATE = FindingType(
    code="shared-learning-rate",
    scope="comparison",
    looks_for="One learning rate for strategies that want unlike ones: it suits one and makes another look worse than it is.",
    threshold="Two strategies or more are trained with one rate, their own defaults differ, and `compare.training` gives none of them a rate of its own. Not reported with `compare.held_equal: tuned`. Reported before the runs.",
)


def shared_learning_rate(
    rates: Mapping[str, float], defaults: Mapping[str, float]
) -> Finding | None:
    """Check whether strategies whose defaults differ share a learning rate.

    Args:
        rates: what each strategy is trained with, of those that were given none of their own.
        defaults: what each wants where a recipe is silent.
    """
    groups = ([name for name, its in rates.items() if its == rate] for rate in rates.values())
    sharing = [names for names in groups if len({defaults[name] for name in names}) > 1]
    if not sharing:
        return None
    names = sharing[0]
    shown = ", ".join(f"{name} {defaults[name]:g}" for name in names)
    return SHARED_LEARNING_RATE.found(
        "warning",
        f"{', '.join(names[:-1])} and {names[-1]} share one learning rate, {rates[names[0]]:g}, although their defaults differ ({shown}): what suits one may make another learn nothing, or forget.",
        f"Leave training.learning_rate out, so that each has its default, or give each its own: compare.training.{names[0]}.learning_rate; peftune tune finds them.",
    )


LONG_WARMUP = FindingType(
    code="warmup-longer-than-training",
    scope="run",
    looks_for="The learning rate was still rising when training ended, so it never was what the recipe asks for.",
    threshold="`training.warmup_steps` is at least the number of optimizer steps that were taken. A share (below 1) cannot be. Reported before the training where its length is known by then.",
)

IGNORED_WARMUP = FindingType(
    code="warmup-ignored",
    scope="run",
    looks_for="A warm-up is asked for, and the schedule has none.",
    threshold="`training.warmup_steps` is above 0 with `training.lr_scheduler_type: constant`, which takes no notice of it. Reported before the training.",
)


def find_long_warmup(facts: RunFacts) -> Finding | None:
    """Check whether training ended within its warm-up."""
    return long_warmup(facts.recipe.training, facts.training.steps)


def find_ignored_warmup(facts: RunFacts) -> Finding | None:
    """Check whether the schedule takes no notice of the warm-up."""
    return ignored_warmup(facts.recipe.training)


def warmup_ahead(section: TrainingSection, rows: int | None) -> list[Finding]:
    """Look before a training whether its warm-up will be what was asked for.

    Args:
        section: resolved `training` section.
        rows: training rows; None where they are packed, so that the steps are not known.
    """
    steps = None if rows is None and section.max_steps < 0 else planned_steps(section, rows or 0)
    found = [ignored_warmup(section), None if steps is None else long_warmup(section, steps)]
    return [finding for finding in found if finding is not None]


def planned_steps(section: TrainingSection, rows: int) -> int:
    """Count the optimizer steps of a training that does not stop early, as Trainer does."""
    if section.max_steps > 0:
        return section.max_steps
    passes = math.ceil(rows / section.per_device_train_batch_size)
    return math.ceil(
        section.num_train_epochs * math.ceil(passes / section.gradient_accumulation_steps)
    )


def long_warmup(section: TrainingSection, steps: int) -> Finding | None:
    """Check whether so many steps end within the warm-up."""
    warmup, rate = int(section.warmup_steps), section.learning_rate
    if section.lr_scheduler_type == "constant" or not 1 <= steps <= warmup or rate is None:
        return None
    # The first step has a rate of zero, and the peak comes in the step after the warm-up.
    highest = rate * (steps - 1) / warmup
    return LONG_WARMUP.found(
        "warning",
        f"The warm-up of {warmup} steps does not end within the training of {steps}, so the learning rate rises to {highest:.2g} and never reaches {rate:g}.",
        "Lower training.warmup_steps (a number below 1 is a share of all steps, such as 0.1), or train for longer.",
    )


def ignored_warmup(section: TrainingSection) -> Finding | None:
    """Check whether the schedule takes no notice of the warm-up."""
    if section.lr_scheduler_type != "constant" or section.warmup_steps == 0:
        return None
    return IGNORED_WARMUP.found(
        "warning",
        f"training.warmup_steps is {section.warmup_steps:g}, but lr_scheduler_type: constant has no warm-up: the learning rate is {section.learning_rate:g} from the first step on.",
        "Set training.lr_scheduler_type: constant_with_warmup, or leave training.warmup_steps out.",
    )
