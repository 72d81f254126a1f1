"""Contextual calibration: what a prompt makes likely before any text has been read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing of any label."""


def calibrated(
    log_likelihood: NDArray[np.float64], content_free: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Divide label probabilities by those of content-free texts, and let them sum to one again.

    Args:
        log_likelihood: of each label's name after each text, (texts, labels), nats.
        content_free: of each label's name after each content-free text, (inputs, labels), nats.

    Returns:
        Probabilities, (texts, labels).

    References:
        Zhao et al. 2021, Calibrate Before Use: Improving Few-Shot Performance of Language Models,
        arXiv:2102.09690: a diagonal weight 1 / p_cf, no bias.
    """
    return np.asarray(softmax(log_likelihood - log_prior(content_free), axis=-1))


def log_prior(content_free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the label probabilities of content-free texts: (inputs, labels) -> (labels,), in logs.

    In logs, a label that a prompt makes all but impossible divides by no zero.
    """
    shares = log_softmax(content_free, axis=-1)
    return np.asarray(logsumexp(shares, axis=0) - np.log(len(shares)))
