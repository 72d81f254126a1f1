"""Hold rows out: stratified, seeded, never the first n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
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
    try:
        stay, held = train_test_split(
            np.arange(len(rows)), test_size=share, stratify=_strata(rows), random_state=seed
        )
    except ValueError as error:
        smallest = min(Counter(rows.labels).values())
        message = f"data.{key}: {share} of {len(rows)} rows cannot be held out so that every class is in both parts (the smallest class has {smallest}). Add rows to it, or change data.{key}."
        raise DataError(message) from error
    return rows.take(sorted(stay.tolist())), rows.take(sorted(held.tolist()))


def limit(rows: Rows, maximum: int | None, *, seed: int, key: str) -> Rows:
    """Keep a seeded, stratified sample of at most `maximum` rows, in the order of the file.

    Every class keeps its share within a row, and at least one row.

    Raises:
        DataError: fewer rows are asked for than there are classes.
    """
    if maximum is None or maximum >= len(rows):
        return rows
    labels = np.array(_strata(rows) or [0] * len(rows))
    classes, counts = np.unique(labels, return_counts=True)
    if maximum < len(classes):
        message = f"data.{key}: {maximum} rows cannot hold all {len(classes)} classes. Ask for at least {len(classes)}."
        raise DataError(message)
    generator = np.random.default_rng(seed)
    kept = [
        generator.choice(np.flatnonzero(labels == label), size, replace=False)
        for label, size in zip(classes, _quotas(counts, maximum), strict=True)
    ]
    return rows.take(sorted(np.concatenate(kept).tolist()))


def per_label(rows: Rows, count: int, *, seed: int, names: Sequence[str]) -> Rows:
    """Keep a seeded sample of `count` rows of each label, in the order of the file.

    Of one seed, the rows of a smaller sample are among those of a larger.

    Args:
        rows: single-label rows.
        count: rows kept of each label.
        seed: seed of the data.
        names: label names in the order of their ids.

    Raises:
        DataError: labels have fewer rows than that; fewer are never taken in silence.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(rows.labels)
    shuffled = [
        generator.permutation(np.flatnonzero(labels == label)) for label in range(len(names))
    ]
    short = [
        f"'{name}' has {len(found)}"
        for name, found in zip(names, shuffled, strict=True)
        if len(found) < count
    ]
    if short:
        message = f"data.train_examples_per_label: {count} rows of each label are asked for, but of the rows to learn from {', '.join(short)}. Ask for fewer, or add rows."
        raise DataError(message)
    kept = np.concatenate([found[:count] for found in shuffled])
    return rows.take(sorted(kept.tolist()))


def _strata(rows: Rows) -> list[int] | None:
    """Return the class of each row, of which every part gets its share; None where there are none."""
    classes = [label for label in rows.labels if isinstance(label, int)]
    return classes if len(classes) == len(rows) else None


def _quotas(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share `total` out in proportion to `counts`, at least one each, by largest remainder."""
    exact = counts * total / counts.sum()
    quotas: NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    while quotas.sum() != total:
        step = 1 if quotas.sum() < total else -1
        owed = np.where((step > 0) | (quotas > 1), step * (exact - quotas), -np.inf)
        quotas[owed.argmax()] += step
    return quotas
