"""Tell wrong labels from the errors of a classifier: where it is sure of itself, only the former are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import chi2

_MOST = 0.99
_ERROR = 0.05
_PRECISION = 1e-3
_WIDEST = 10.0
"""Bound of the log of the scale, and of the shifts."""

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


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
