"""Choose rows so that every label keeps its share: of several labels a row, of numbers, of groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peftune.data.rows import Rows

_BINS = 10


def classes_of(rows: Rows) -> list[int] | None:
    """Return the class of each row; None where rows have no single class.

    The class of a number is its tenth of all, counted from the lowest.
    """
    labels = rows.labels
    if all(isinstance(label, int) for label in labels):
        return list(labels)
    if all(isinstance(label, float) for label in labels):
        numbers = np.array(labels)
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
        return [int(place) for place in np.searchsorted(edges, numbers, side="right")]
    return None


def counts_of(rows: Rows) -> NDArray[np.float64]:
    """Count what each row has of which every part shall get its share.

    Returns:
        (rows, things), 0.0 or 1.0: the row itself, then its class, or for each label of
        multi-label whether it applies, and whether it does not.
    """
    alone = np.ones((len(rows), 1))
    classes = classes_of(rows)
    if classes is not None:
        return np.hstack([alone, np.eye(max(classes) + 1)[classes]])
    if rows.labels[0] is None:
        return alone
    cells = np.array(rows.labels, dtype=np.float64)  # nan, which is not known, is neither
    return np.hstack([alone, cells == 1, cells == 0])


def chosen_units(
    counts: NDArray[np.float64], share: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose units so that what they hold comes close to a share of everything.

    One unit after another goes where the counts so far are closer to the share: those with the
    rarest label first, while there is still choice, and the large before the small, which make up
    for them. Counts of a rare label weigh more.

    Args:
        counts: what each unit holds, (units, things), float64.
        share: what part of each thing to choose, between 0 and 1.
        generator: decides the order among equals.

    Returns:
        Whether each unit is chosen, (units,), bool.

    References:
        Sechidis et al. 2011, On the Stratification of Multi-Label Data (rarest label first);
        there for single rows.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    rarest = np.where(counts > 0, totals, np.inf).min(axis=1)
    order = np.lexsort((generator.permutation(len(counts)), -counts.sum(axis=1), rarest))
    chosen = np.zeros(len(counts), dtype=bool)
    surplus = np.zeros(counts.shape[1])  # what is chosen so far, less its share of what was seen
    weights = 1 / totals
    for unit in order:
        with_it = surplus + (1 - share) * counts[unit]
        without = surplus - share * counts[unit]
        chosen[unit] = weights @ with_it**2 < weights @ without**2
        surplus = with_it if chosen[unit] else without
    return chosen
