"""Whether a score is more than can be had without reading a row: the gate of every verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import log_softmax

from peftune.recipe.task_type import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from peftune.stats.crossed import crossed_error
from peftune.stats.intervals import FEWEST_DOCUMENTS, contributions
from peftune.stats.tests import permutation_p_value
from peftune.tasks.scores import Significance

Floats = NDArray[np.float64]

LEVEL = 0.025
"""One side of a 95% interval."""

_LEAST_PROBABILITY = 1e-12
_SEED = 0
"""Of the permutations, so that the same rows give the same answer."""


def significance_of_classes(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    log_probabilities: Floats,
    *,
    metric: str | None = None,
) -> Significance:
    """Ask whether a classifier, or several seeds of one taken together, tells labels by their rows.

    The score is set against that of the same answers given to the same rows in another order, which
    is what a model scores that does not read; and where a constant answer, or guessing by
    frequency, scores more than that, against this: constant answers score the same in any order.

    Args:
        labels: label ids, (rows,).
        predicted: label ids, (seeds, rows).
        log_probabilities: natural logarithms, (seeds, rows, labels).
        metric: what the checkpoint is chosen by; macro F1 where it is None, or not defined here.

    Returns:
        Learned where the one-sided p-value is at most 0.025.

    References:
        Ojala and Garriga 2010, Permutation tests for studying classifier performance.
    """
    chosen = metric or SINGLE_LABEL.default_metric
    classes = log_probabilities.shape[-1]
    counts = np.bincount(labels, minlength=classes)
    if chosen == "roc_auc" and not counts.all():
        chosen = SINGLE_LABEL.default_metric
    of_seeds = [
        _CREDIT[chosen](labels, assigned, logs, counts)
        for assigned, logs in zip(predicted, log_probabilities, strict=True)
    ]
    credit = np.mean([one.of_labels for one in of_seeds], axis=0)  # (rows, labels)
    rows = np.arange(len(labels))
    p_value = permutation_p_value(
        lambda order: float(credit[rows, labels[order]].sum()),
        len(labels),
        # Of averaged credits: of a correlation it depends on how often a seed names each label.
        at_least=float(np.mean([one.unread for one in of_seeds])),
        seed=_SEED,
    )
    return _significance(chosen, of_seeds[0].without_reading, p_value)


def significance_of_logits(
    logits: NDArray[np.floating[Any]], labels: Sequence[int], *, metric: str | None = None
) -> Significance:
    """Ask it of one classifier's logits, (rows, labels)."""
    outputs = np.asarray(logits, np.float64)
    return significance_of_classes(
        np.asarray(labels, np.int64),
        outputs.argmax(-1)[None],
        np.asarray(log_softmax(outputs, axis=-1))[None],
        metric=metric,
    )


def significance_of_label_sets(
    truth: Floats, assigned: NDArray[np.bool_], logits: Floats, *, metric: str | None = None
) -> Significance:
    """Ask the same where a row has any number of labels, by permuting whole rows of labels.

    Args:
        truth: 1, 0, or nan where it is not known, (rows, labels).
        assigned: whether the label is assigned, (rows, labels).
        logits: (rows, labels).
        metric: as in `significance_of_classes`.
    """
    chosen = metric or MULTI_LABEL.default_metric
    if chosen == "accuracy":
        return _of_whole_rows(truth, assigned)
    credit = _credit_of_label_sets(chosen, truth, assigned, logits)
    positive = np.nan_to_num(truth)
    p_value = permutation_p_value(
        lambda order: float(np.vdot(credit.of_labels, positive[order])),
        len(truth),
        at_least=credit.unread,
        seed=_SEED,
    )
    return _significance(chosen, credit.without_reading, p_value)


def _of_whole_rows(truth: Floats, assigned: NDArray[np.bool_]) -> Significance:
    """Ask it of the share of rows with every known label right."""
    known, positive = ~np.isnan(truth), truth == 1
    sets = np.unique(np.nan_to_num(truth), axis=0, return_counts=True)[1]
    commonest = float(sets.max() / len(truth))

    def score(order: NDArray[np.int64]) -> float:
        return 1 - float((known[order] & (positive[order] != assigned)).any(axis=1).mean())

    p_value = permutation_p_value(score, len(truth), at_least=commonest, seed=_SEED)
    return _significance("accuracy", commonest, p_value)


def _credit_of_label_sets(
    metric: str, truth: Floats, assigned: NDArray[np.bool_], logits: Floats
) -> Credit:
    known, positive = ~np.isnan(truth), truth == 1
    support, counted = positive.sum(axis=0), np.maximum(known.sum(axis=0), 1)
    mentions = np.maximum(support + (assigned & known).sum(axis=0), 1)
    shares = support / counted
    every = (
        2 * shares / (1 + shares)
    )  # F1 of each label assigned to every row, which no guess exceeds
    if metric == "micro_f1":
        unread = float(2 * support.sum() / (support.sum() + counted.sum()))
        return Credit.plain(2 * assigned / mentions.sum(), unread)
    if metric == "weighted_f1":
        weights = support / max(support.sum(), 1)
        return Credit.plain(2 * assigned / mentions * weights, float((every * weights).sum()))
    if metric in ("log_loss", "loss"):
        # A cell costs log(1 + e^x) - y x, so of the labels only y x is moved by another order.
        least = np.clip(shares, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        entropy = -(shares * np.log(least) + (1 - shares) * np.log(1 - least))
        cells = float(known.sum())
        best = float((entropy * counted).sum() / cells)
        constant = float((np.logaddexp(0.0, logits) * known).sum() / cells)
        return Credit(np.where(known, logits, 0.0) / cells, constant - best, best)
    if metric == "roc_auc":
        return _ranked(logits, positive, known)
    return Credit.plain(2 * assigned / mentions / truth.shape[1], float(every.mean()))


def significance_of_numbers(
    truth: Floats, assigned: Floats, *, metric: str | None = None
) -> Significance:
    """Ask whether numbers are told better than by one number for every row.

    Errors are set, row by row, against those of the constant that has the smallest on these rows;
    a correlation against none.

    Args:
        truth: (rows,).
        assigned: (rows,).
        metric: what the checkpoint is chosen by; the squared error where it is None.
    """
    chosen = metric or REGRESSION.default_metric
    if chosen in ("pearson", "spearman"):
        if len(truth) < 3 or np.ptp(truth) == 0 or np.ptp(assigned) == 0:  # noqa: PLR2004 - no correlation
            return _significance(chosen, 0.0, 1.0)
        test = stats.pearsonr if chosen == "pearson" else stats.spearmanr
        found = test(truth, assigned, alternative="greater")
        return _significance(chosen, 0.0, float(found.pvalue))
    if chosen == "mae":
        without, left = np.abs(truth - np.median(truth)), np.abs(truth - assigned)
    else:
        without, left = np.square(truth - truth.mean()), np.square(truth - assigned)
    return _significance(chosen, float(without.mean()), _p_of_gain(without - left))


def significance_of_gain(gain: Floats, weight: Floats) -> Significance:
    """Ask whether a domain's text is predicted better than by the base.

    Args:
        gain: bits that were gained on each document, (documents,).
        weight: its bytes.
    """
    enough = len(gain) >= FEWEST_DOCUMENTS
    p_value = _p_of_gain(contributions(gain[None], weight)[0]) if enough else 1.0
    return _significance("loss", 0.0, p_value)


def _p_of_gain(gain: Floats) -> float:
    """Return the one-sided p-value of a mean gain over rows."""
    mean = float(gain.mean())
    if len(gain) < 2 or mean <= 0:  # noqa: PLR2004 - one row has no spread
        return 1.0
    if np.ptp(gain) == 0:
        return 0.0
    return crossed_error(gain[None]).p_value(mean) / 2


def _significance(metric: str, without_reading: float, p_value: float) -> Significance:
    return Significance(metric, without_reading, p_value, learned=p_value <= LEVEL)


@dataclass(frozen=True, slots=True)
class Credit:
    """A metric as a sum over rows of what the row's label is worth.

    Args:
        of_labels: what each row adds under each label it could have, (rows, labels).
        unread: the most that such a sum has without reading.
        without_reading: the same in the metric's own units.
    """

    of_labels: Floats
    unread: float
    without_reading: float

    @classmethod
    def plain(cls, of_labels: Floats, unread: float) -> Credit:
        """Build that of a metric which is the sum itself."""
        return cls(of_labels, unread, unread)


Ids = NDArray[np.int64]


def _accuracy(_: Ids, assigned: Ids, __: Floats, counts: Ids) -> Credit:
    right = np.eye(len(counts))[assigned] / len(assigned)
    return Credit.plain(right, float(counts.max() / len(assigned)))


def _macro_f1(_: Ids, assigned: Ids, __: Floats, counts: Ids) -> Credit:
    # 2 q p / (q + p) is at most (q + p) / 2: over all labels at most 1, when guessed by frequency.
    return Credit.plain(_hits(assigned, counts) / len(counts), 1 / len(counts))


def _weighted_f1(_: Ids, assigned: Ids, __: Floats, counts: Ids) -> Credit:
    shares = counts / counts.sum()
    return Credit.plain(
        _hits(assigned, counts) * shares, float((shares * 2 * shares / (1 + shares)).max())
    )


def _binary_f1(_: Ids, assigned: Ids, __: Floats, counts: Ids) -> Credit:
    share = float(counts[1] / counts.sum())
    return Credit.plain(_hits(assigned, counts) * np.array([0.0, 1.0]), 2 * share / (1 + share))


def _balanced_accuracy(_: Ids, assigned: Ids, __: Floats, counts: Ids) -> Credit:
    present = counts > 0
    recall = np.eye(len(counts))[assigned] / np.maximum(counts, 1)
    return Credit.plain(recall / present.sum(), 1 / float(present.sum()))


def _mcc(_: Ids, assigned: Ids, __: Floats, counts: Ids) -> Credit:
    rows, mentions = len(assigned), np.bincount(assigned, minlength=len(counts)).astype(np.float64)
    spread = (rows**2 - float((counts**2.0).sum())) * (rows**2 - float((mentions**2).sum()))
    if spread <= 0:
        return Credit(np.zeros((rows, len(counts))), 0.0, 0.0)
    # Constant answers have no correlation; what is taken off does not depend on the order.
    onehot = np.eye(len(counts))[assigned]
    return Credit(onehot * rows / spread**0.5, float(counts @ mentions) / spread**0.5, 0.0)


def _log_loss(_: Ids, __: Ids, logs: Floats, counts: Ids) -> Credit:
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    return Credit(logs / len(logs), -entropy, entropy)


def _roc_auc(labels: Ids, __: Ids, logs: Floats, counts: Ids) -> Credit:
    positive = np.eye(len(counts), dtype=bool)[labels]
    return _ranked(logs, positive, np.ones_like(positive))


def _hits(assigned: Ids, counts: Ids) -> Floats:
    """Return what a row adds to the F1 of the label that is assigned to it, (rows, labels)."""
    mentions = np.bincount(assigned, minlength=len(counts)) + counts
    return np.asarray(np.eye(len(counts))[assigned] * 2 / np.maximum(mentions, 1))


def _ranked(scores: Floats, positive: NDArray[np.bool_], known: NDArray[np.bool_]) -> Credit:
    """Return ranks in units of the area under the curve, averaged over labels that have one."""
    credit, least, columns = np.zeros_like(scores), 0.0, 0
    for column in range(scores.shape[1]):
        rows = np.flatnonzero(known[:, column])
        ones = int(positive[rows, column].sum())
        pairs = ones * (len(rows) - ones)
        if pairs:
            credit[rows, column] = stats.rankdata(scores[rows, column]) / pairs
            # The area is the sum of ranks less what the smallest ranks sum to; unread it is 0.5.
            least += ones * (ones + 1) / 2 / pairs + 0.5
            columns += 1
    return Credit(credit / max(columns, 1), least / max(columns, 1), 0.5)


_CREDIT: Mapping[str, Callable[[Ids, Ids, Floats, Ids], Credit]] = {
    "macro_f1": _macro_f1,
    "accuracy": _accuracy,
    "micro_f1": _accuracy,
    "weighted_f1": _weighted_f1,
    "binary_f1": _binary_f1,
    "balanced_accuracy": _balanced_accuracy,
    "mcc": _mcc,
    "roc_auc": _roc_auc,
    "log_loss": _log_loss,
    "loss": _log_loss,
}
"""From labels, predictions, log probabilities and rows by label."""
