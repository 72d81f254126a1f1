"""Hold rows out: stratified, seeded, never the first n."""

from __future__ import annotations

from collections import Counter

import numpy as np
from sklearn.model_selection import train_test_split

from peftune.data.rows import Rows
from peftune.errors import DataError


def hold_out(rows: Rows, share: float, *, seed: int, key: str) -> tuple[Rows, Rows]:
    """Split rows in two, with the same share of every class.

    Args:
        rows: what to split.
        share: share of the second part, between 0 and 1.
        seed: seed of the data.
        key: recipe key that asked for it, for messages.

    Returns:
        The rows that stay, and those held out; both in the order of the file.

    Raises:
        DataError: a class has too few rows to be in both parts.
    """
    stay, held = _stratified(rows, share, seed=seed, key=key)
    return rows.take(stay), rows.take(held)


def limit(rows: Rows, maximum: int | None, *, seed: int, key: str) -> Rows:
    """Keep a seeded, stratified sample of at most `maximum` rows, in the order of the file.

    Raises:
        DataError: fewer rows are asked for than there are classes.
    """
    if maximum is None or maximum >= len(rows):
        return rows
    _, kept = _stratified(rows, maximum, seed=seed, key=key)
    return rows.take(kept)


def _stratified(rows: Rows, size: float, *, seed: int, key: str) -> tuple[list[int], list[int]]:
    indices = np.arange(len(rows))
    try:
        stay, held = train_test_split(
            indices, test_size=size, stratify=rows.labels, random_state=seed
        )
    except ValueError as error:
        smallest = min(Counter(rows.labels).values())
        message = f"data.{key}: {size} of {len(rows)} rows cannot be held out so that every class is in both parts (the smallest class has {smallest}): {error}"
        raise DataError(message.rstrip(".") + ".") from error
    return sorted(stay.tolist()), sorted(held.tolist())
