"""Which rows must stay on one side when rows are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from peftune.data.normalised import normalised
from peftune.data.rows import Rows


def units_of(rows: Rows) -> NDArray[np.int64]:
    """Number the sets of rows that stay together: equal texts, and rows of one group.

    Texts are equal as `normalised` says. A row without a group belongs to none. Where a text is in
    two groups, both stay together.

    Returns:
        The number of each row's set, (rows,), int64; as many sets as rows if nothing binds them.
    """
    ties = [_numbered(normalised(text) for text in rows.texts)]
    if rows.groups is not None:
        ties.append(_numbered(_named_or_alone(rows.groups)))
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


def _named_or_alone(groups: Sequence[str]) -> Iterable[str]:
    return (f"={group}" if group else str(row) for row, group in enumerate(groups))


def _numbered(values: Iterable[str]) -> NDArray[np.int64]:
    """Number equal values alike; 16 bytes of each are kept, not the value."""
    digests = b"".join(
        hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for value in values
    )
    _, numbers = np.unique(np.frombuffer(digests, dtype="V16"), return_inverse=True)
    return numbers.astype(np.int64)
