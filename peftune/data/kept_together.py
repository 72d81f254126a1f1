"""Which rows must stay on one side when rows are held out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from peftune.data.keys import NO_TEXT, text_keys
from peftune.data.rows import Rows


def units_of(rows: Rows) -> NDArray[np.int64]:
    """Number the sets of rows that stay together: equal texts, and rows of one group.

    Texts are equal as `normalised` says, blank ones never. A row without a group belongs to none.
    Where a text is in two groups, both stay together.

    Returns:
        The number of each row's set, (rows,), int64; as many sets as rows if nothing binds them.
    """
    keys = text_keys(rows.texts)
    ties = [_numbered(None if key == NO_TEXT else key for key in keys.tolist())]
    if rows.groups is not None:
        ties.append(_numbered(group or None for group in rows.groups))
    here = np.arange(len(rows))
    sources, targets, first = [], [], len(rows)
    for tie in ties:
        sources.append(here)
        targets.append(first + tie)
        first += int(tie.max(initial=-1)) + 1
    edges = (np.concatenate(sources), np.concatenate(targets))
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(first, first))
    _, component = connected_components(graph, directed=False)
    units: NDArray[np.int64] = np.unique(component[: len(rows)], return_inverse=True)[1]
    return units.astype(np.int64)


def _numbered(values: Iterable[str | int | None]) -> NDArray[np.int64]:
    """Number equal values alike; None is equal to nothing."""
    numbers: dict[object, int] = {}
    return np.array(
        [
            numbers.setdefault(object() if value is None else value, len(numbers))
            for value in values
        ],
        dtype=np.int64,
    )
