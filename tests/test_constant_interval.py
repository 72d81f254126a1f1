"""The interval of documents that all change by the same amount."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from peftune.forgetting.intervals import forgetting_interval
from peftune.probes import Measurement


@pytest.mark.parametrize("documents", [2, 49, 50])
def test_a_constant_change_has_an_interval_of_no_width_and_no_warning(documents: int) -> None:
    """A frozen trunk changes no document: the interval is that one value, said in silence."""
    before = Measurement(
        total=np.arange(documents, dtype=np.float64),
        weight=np.ones(documents),
        tokens=np.ones(documents, dtype=np.int64),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert forgetting_interval(before, before, seed=0) == (0.0, 0.0)
