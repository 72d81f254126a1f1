"""Subsets of the training rows, each within the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peftune.data.rows import Rows
from peftune.errors import UsageError

FEWEST_SIZES = 4
"""A power law has three parameters; fewer sizes would be met by any."""


def nested_order(rows: Rows, *, seed: int) -> list[int]:
    """Order rows so that the first n hold every label in about its share, whatever n is.

    The first row of every label comes before any second one.

    Args:
        rows: single-label rows.
        seed: decides which rows come first.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(rows.labels)
    place = np.zeros(len(labels))
    for label in sorted(set(rows.labels)):
        found = generator.permutation(np.flatnonzero(labels == label))
        place[found] = np.arange(len(found)) / len(found)
    return [int(row) for row in np.lexsort((generator.permutation(len(labels)), place))]


def sizes_of(count: int, fractions: Sequence[float], *, labels: int) -> list[int]:
    """Return the numbers of rows to learn from, ascending.

    Args:
        count: training rows.
        fractions: shares of them, above 0 and at most 1.
        labels: how many labels there are; each subset has all.

    Raises:
        UsageError: a fraction is none, or there are fewer than four different sizes.
    """
    if not fractions or min(fractions) <= 0 or max(fractions) > 1:
        message = f"fractions lie above 0 and up to 1 (got {', '.join(f'{one:g}' for one in fractions) or 'none'})."
        raise UsageError(message)
    sizes = sorted({max(labels, round(fraction * count)) for fraction in fractions})
    if len(sizes) < FEWEST_SIZES:
        message = f"A learning curve needs {FEWEST_SIZES} numbers of rows, for the law that is fitted has 3 parameters (got {', '.join(map(str, sizes))} of {count} rows). Give more fractions, or add rows."
        raise UsageError(message)
    return sizes
