"""How a law says that it is broken: in one sentence."""

from __future__ import annotations

import pytest
import torch

TOLERANCE = 1e-5
"""Largest difference between two ways to compute the same float, relative to the largest (or 1)."""


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors."""
    return float((first - second).abs().max())


def require_close(
    actual: torch.Tensor, expected: torch.Tensor, what: str, *, tolerance: float = TOLERANCE
) -> None:
    """Fail unless two tensors agree up to the tolerance, relative to the largest value (or 1)."""
    __tracebackhide__ = True
    difference = largest_difference(actual, expected)
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    require(
        difference <= allowed, f"{what} are off by {difference:.3g}; allowed is {allowed:.3g}."
    )


def require(holds: bool, fault: str) -> None:
    """Fail with one sentence: asserts of an installed package tell an author nothing."""
    __tracebackhide__ = True
    if not holds:
        pytest.fail(fault)
