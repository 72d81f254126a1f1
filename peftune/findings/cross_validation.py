"""A linear probe's word on rows that it was not fitted on, and what cleanlab makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import chi2

from peftune.data.rows import Rows
from peftune.data.splits import fold_numbers, units_of
from peftune.errors import DataError
from peftune.progress import counted

FOLDS = 5

_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """A label that stands where another is likelier.

    Args:
        given: the label of the rows.
        likely: the likelier one.
        rows: how many rows cleanlab finds to be so; of a weak probe most are its own errors.
    """

    given: str
    likely: str
    rows: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What a linear probe says of rows that it was not fitted on.

    Args:
        logits: of the labels, (rows, labels), float64.
        given: the labels, (rows,), int64.
        folds: how many folds there were.
        penalty: the `C` that was chosen.
    """

    logits: Matrix
    given: Labels
    folds: int
    penalty: float


def folds_of(train: Rows, seed: int) -> tuple[Labels, int, NDArray[np.bool_]]:
    """Number the fold of each row whose label can be in two folds.

    Returns:
        The numbers, how many folds there are, and which labels are inside, (labels,), bool.
    """
    labels = np.asarray(train.labels)
    inside = np.bincount(labels) > 1
    while True:
        places = np.flatnonzero(inside[labels])
        if len(np.unique(labels[places])) < 2:  # noqa: PLR2004 - a task of one label is none
            message = "Wrong labels cannot be looked for: it takes two labels with two different texts each."
            raise DataError(message)
        rows = train.take(places.tolist())
        for folds in range(FOLDS, 1, -1):
            try:
                return fold_numbers(rows, folds, seed=seed), folds, inside
            except DataError:  # noqa: PERF203 - five at most
                continue
        inside = inside & ~_of_one_text(train, len(inside))


def _of_one_text(train: Rows, labels: int) -> NDArray[np.bool_]:
    """Find the labels whose rows all stay together, or else the one with the fewest rows."""
    units, given = units_of(train), np.asarray(train.labels)
    sets = np.array([len(np.unique(units[given == label])) for label in range(labels)])
    alone: NDArray[np.bool_] = sets == 1
    if not alone.any():
        alone[np.where(sets > 0, sets, len(train)).argmin()] = True
    return alone


def probe_rows(features: Matrix, given: Labels, numbers: Labels, folds: int) -> Probed:
    """Ask a linear probe about rows that it was not fitted on.

    Of the penalties the one with the lowest log loss on these rows is taken, from the strongest on
    until the loss rises.

    Args:
        features: (rows, features), float64.
        given: the labels, from 0 without a gap, (rows,), int64.
        numbers: the fold of each row, (rows,), int64.
        folds: how many there are.
    """
    lowest, best = np.inf, Probed(np.zeros((0, 0)), given, folds, 0.0)
    for penalty in counted(_PENALTIES, "looking for wrong labels", unit="penalties"):
        logits = np.zeros((len(given), int(given.max()) + 1))
        for fold in range(folds):
            held = numbers == fold
            logits[held] = fitted_logits(features[~held], given[~held], features[held], penalty)
        loss = float(-log_softmax(logits, axis=1)[np.arange(len(given)), given].mean())
        if loss > lowest:
            break
        lowest, best = loss, Probed(logits, given, folds, penalty)
    return best


def fitted_logits(features: Matrix, given: Labels, asked: Matrix, penalty: float) -> Matrix:
    """Fit a logistic regression as `linear_probe` does, and return logits: (asked, labels)."""
    from sklearn.linear_model import LogisticRegression

    scale = np.sqrt((features**2).mean(axis=0))
    scale[scale == 0] = 1.0
    probe = LogisticRegression(C=penalty, fit_intercept=False, max_iter=10_000)
    logits = probe.fit(features / scale, given).decision_function(asked / scale)
    return np.stack([-logits / 2, logits / 2], axis=1) if logits.ndim == 1 else np.asarray(logits)


def confident_learning(
    probed: Probed, names: Sequence[str]
) -> tuple[float, list[Confusion], NDArray[np.int64]]:
    """Ask cleanlab.

    Returns:
        The share of wrong labels by the confident joint; the confusions, the most frequent first;
        and the rows that cleanlab names, in order.
    """
    from cleanlab.count import compute_confident_joint, estimate_joint
    from cleanlab.filter import find_label_issues

    given, probabilities = probed.given, softmax(probed.logits, axis=1)
    joint = compute_confident_joint(given, probabilities)  # (given, likely), rows
    share = 1 - float(np.trace(estimate_joint(given, probabilities, confident_joint=joint)))
    confusions = [
        Confusion(names[row], names[column], int(joint[row, column]))
        for row, column in np.ndindex(*joint.shape)
        if row != column and joint[row, column] > 0
    ]
    confusions.sort(key=lambda confusion: -confusion.rows)
    flagged = find_label_issues(given, probabilities, confident_joint=joint, n_jobs=1)
    return share, confusions, np.flatnonzero(flagged)


def likely_others(probabilities: Matrix, given: Labels) -> Labels:
    """Return the likeliest label of each row but the given one, (rows,), int64."""
    others = probabilities.copy()
    others[np.arange(len(given)), given] = -1
    return np.asarray(others.argmax(axis=1))


def predicted_labels(features: Matrix, labels: Labels, asked: Matrix, penalty: float) -> Labels:
    """Fit a logistic regression to rows, and return the labels that it gives to others."""
    known, numbered = np.unique(labels, return_inverse=True)
    return np.asarray(known[fitted_logits(features, numbered, asked, penalty).argmax(axis=1)])


_MOST = 0.99
_ERROR = 0.05
_PRECISION = 1e-3
_WIDEST = 10.0
"""Bound of the log of the scale, and of the shifts."""


@dataclass(frozen=True, slots=True)
class NoiseRate:
    """How many labels are wrong, if they are wrong in the way that was looked for.

    Args:
        share: the most likely share of rows with a wrong label.
        interval: 95% profile-likelihood interval of the share.
        accuracy: share of right labels that the classifier would give, if the share is the likely
            one.
        loss: negative log-likelihood, in nats; lower is better.
    """

    share: float
    interval: tuple[float, float]
    accuracy: float
    loss: float


def even_noise(logits: Matrix, given: Labels) -> NoiseRate:
    """Estimate the share of wrong labels that are spread evenly, by maximum likelihood.

    A classifier that is only weak is wrong where it is unsure: its logits, scaled, tell how often.
    Wrong labels are left where it is sure, too. So a label is taken to be drawn from
    softmax(a * logits + b), and then, with a probability that does not depend on the text, to be
    any label at all.

    Args:
        logits: out-of-sample logits of the labels, (rows, labels), float64.
        given: the labels, (rows,), int64.

    References:
        Bootkrajang and Kaban 2012, Label-noise robust logistic regression, ECML PKDD; there the
        weights are fitted, here scale and shifts of out-of-sample logits, so that no row tells
        itself.
    """
    labels = logits.shape[1]
    change = np.full((labels, labels), 1 / labels) - np.eye(labels)
    return _Profile(logits, given, change).rate_of(_ERROR)


def one_way_noise(
    logits: Matrix, given: Labels, ways: Sequence[tuple[int, int]]
) -> tuple[NoiseRate, tuple[int, int]] | None:
    """Estimate the share of rows in which one label stands where another is right.

    It cannot be told from a kind of text that the classifier misreads.

    Args:
        logits: see `even_noise`.
        given: see `even_noise`.
        ways: pairs of a right and a given label to look at.

    Returns:
        The likeliest way and its share. The interval is widened for all pairs of labels
        (Bonferroni), since the same rows choose the pair. None without ways.
    """
    labels = logits.shape[1]
    found = []
    for right, written in ways:
        change = np.zeros((labels, labels))
        change[right, right], change[right, written] = -1, 1
        found.append((_Profile(logits, given, change), (right, written)))
    if not found:
        return None
    best, way = min(found, key=lambda each: each[0].lowest)
    return best.rate_of(_ERROR / (labels * (labels - 1))), way


class _Profile:
    """The likelihood of a rate, whatever the scale and shifts of the logits.

    Args:
        logits: (rows, labels), float64.
        given: (rows,), int64.
        change: what a rate of one adds to the identity, (right label, given label), float64.
    """

    def __init__(self, logits: Matrix, given: Labels, change: Matrix) -> None:
        self._logits, self._given, self._change = logits, given, change
        # The log of the scale, then the shifts.
        found = self._fitted(0.0, np.zeros(logits.shape[1] + 1))
        self._parameters = found.x
        self.rate, self.lowest = 0.0, float(found.fun)
        for rate in (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8):
            self._try(rate)
        step = 0.05
        while step > _PRECISION:
            if not any([self._try(self.rate + step), self._try(self.rate - step)]):
                step /= 2

    def rate_of(self, error: float) -> NoiseRate:
        """Return the best rate, with an interval that misses the true one with this probability."""
        drop = float(chi2.ppf(1 - error, 1)) / 2
        low, high = (self._edge(outer, drop) for outer in (0.0, _MOST))
        accuracy = float(self._probabilities(self._parameters).max(axis=1).mean())
        share, least, most = map(self._share, (self.rate, low, high))
        return NoiseRate(share, (least, most), accuracy, self.lowest)

    def _try(self, rate: float) -> bool:
        """Move to a rate if it is likelier."""
        if not 0 <= rate <= _MOST:
            return False
        found = self._fitted(rate, self._parameters)
        if found.fun >= self.lowest - _PRECISION:
            return False
        self.rate, self.lowest, self._parameters = rate, float(found.fun), found.x
        return True

    def _edge(self, outer: float, drop: float) -> float:
        """Return the rate towards `outer` from which on the likelihood is too low, by bisection."""
        inner, parameters = self.rate, self._parameters
        if self._fitted(outer, parameters).fun <= self.lowest + drop:
            return outer
        while abs(outer - inner) > _PRECISION:
            middle = (outer + inner) / 2
            found = self._fitted(middle, parameters)
            if found.fun <= self.lowest + drop:
                inner, parameters = middle, found.x
            else:
                outer = middle
        return inner

    def _share(self, rate: float) -> float:
        """Return the share of rows whose label a rate changes."""
        probabilities = self._probabilities(self._fitted(rate, self._parameters).x)
        return float(-rate * probabilities.mean(axis=0) @ np.diag(self._change))

    def _fitted(self, rate: float, start: Matrix) -> Any:  # noqa: ANN401 - scipy's
        bounds = [(-_WIDEST, _WIDEST)] * len(start)
        return minimize(
            self._negative, start, args=(rate,), jac=True, method="L-BFGS-B", bounds=bounds
        )

    def _probabilities(self, parameters: Matrix) -> Matrix:
        scaled = np.exp(parameters[0]) * self._logits + parameters[1:]
        return np.asarray(softmax(scaled, axis=1))  # (rows, labels)

    def _negative(self, parameters: Matrix, rate: float) -> tuple[float, Matrix]:
        """Return the negative log-likelihood and its gradient: a scalar, (1 + labels,)."""
        probabilities = self._probabilities(parameters)
        written = (np.eye(len(self._change)) + rate * self._change)[:, self._given].T
        likelihood = np.maximum((probabilities * written).sum(axis=1), 1e-300)  # (rows,)
        slope = -probabilities * (written / likelihood[:, None] - 1)  # (rows, labels)
        scale = (slope * self._logits).sum() * np.exp(parameters[0])
        # A weak pull keeps the shifts, which count up to a constant, where they are.
        pull = 1e-3 * parameters[1:]
        total = -np.log(likelihood).sum() + float(pull @ parameters[1:]) / 2
        return float(total), np.concatenate([[scale], slope.sum(axis=0) + pull])
