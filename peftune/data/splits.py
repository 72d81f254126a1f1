"""Hold rows out: stratified, seeded, never the first n, and never a text on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from peftune.data.rows import Rows
from peftune.data.text_hashes import NO_TEXT, text_keys
from peftune.errors import DataError


def units_of(rows: Rows) -> NDArray[np.int64]:
    """Number the sets of rows that stay together: equal texts, and rows of one group.

    Texts are equal as `normalized` says, blank ones never. A row without a group belongs to none.
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


def hold_out(rows: Rows, share: float, *, seed: int, key: str) -> tuple[Rows, Rows]:
    """Split rows in two, with the same share of every class, label or range of numbers.

    Rows of one group, and rows with equal texts, are on one side.

    Args:
        rows: what to split.
        share: share of the second part, between 0 and 1.
        seed: seed of the data.
        key: recipe key that asked for it, for messages.

    Returns:
        The rows that stay, and those held out; both in the order of the file.

    Raises:
        DataError: a class has too few rows, or too few groups of them, to be in both parts.
    """
    units = units_of(rows)
    alone = int(units.max()) + 1 == len(rows)
    single = isinstance(rows.labels[0], int)
    try:
        if alone and (single or rows.labels[0] is None):
            held = _held_rows(rows, share, seed)
        else:
            held = _held_units(rows, units, share, seed)
    except ValueError as error:
        message = _too_few(rows, units, share, key)
        raise DataError(message) from error
    return rows.take(np.flatnonzero(~held).tolist()), rows.take(np.flatnonzero(held).tolist())


def fold_of(rows: Rows, folds: int, fold: int, *, seed: int) -> tuple[Rows, Rows]:
    """Hold out one of several folds, each with the same share of every class.

    Every row is in one fold. Rows of one group, and rows with equal texts, are in the same.

    Args:
        rows: what to split.
        folds: how many folds there are.
        fold: which one is held out, from 0.
        seed: seed of the data.

    Returns:
        The rows that stay, and those of the fold; both in the order of the file.

    Raises:
        DataError: a class has too few rows, or too few groups of them, to be in every fold.
    """
    numbers = fold_numbers(rows, folds, seed)
    return (
        rows.take(np.flatnonzero(numbers != fold).tolist()),
        rows.take(np.flatnonzero(numbers == fold).tolist()),
    )


def fold_numbers(rows: Rows, folds: int, seed: int) -> NDArray[np.int64]:
    """Number the fold of each row: one fold after another takes its share of what is left."""
    units, counts = units_of(rows), counts_of(rows)
    of_units = np.zeros((int(units.max()) + 1, counts.shape[1]))
    np.add.at(of_units, units, counts)
    numbers = np.full(len(of_units), folds - 1)
    left, generator = np.arange(len(of_units)), np.random.default_rng(seed)
    for number in range(folds - 1):
        chosen = chosen_units(of_units[left], 1 / (folds - number), generator)
        numbers[left[chosen]] = number
        left = left[~chosen]
    found: NDArray[np.int64] = numbers[units]
    labels = np.array(classes_of(rows) or [0] * len(rows))
    missing = [
        label
        for label in np.unique(labels).tolist()
        if len(np.unique(found[labels == label])) < folds
    ]
    if missing:
        bound = " sets of rows that stay together" if len(of_units) < len(rows) else ""
        message = f"data.cross_validation: {folds} folds need every class in each of them (the smallest class has {_fewest(rows, units)}{bound}). Ask for fewer folds, or add rows to it."
        raise DataError(message)
    return found


def _held_rows(rows: Rows, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose among rows that are all free to be on either side."""
    from sklearn.model_selection import train_test_split

    _, chosen = train_test_split(
        np.arange(len(rows)), test_size=share, stratify=classes_of(rows), random_state=seed
    )
    held = np.zeros(len(rows), dtype=bool)
    held[chosen] = True
    return held


def _held_units(
    rows: Rows, units: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.bool_]:
    """Choose among sets of rows.

    Raises:
        ValueError: a part would be empty, or a class would not be learned or could not be scored.
    """
    counts = counts_of(rows)
    of_units = np.zeros((int(units.max()) + 1, counts.shape[1]))
    np.add.at(of_units, units, counts)
    held: NDArray[np.bool_] = chosen_units(of_units, share, np.random.default_rng(seed))[units]
    if held.all() or not held.any():
        message = "a part is empty"
        raise ValueError(message)
    if isinstance(rows.labels[0], int):
        classes = {int(label) for label in rows.labels}
        learned = {int(rows.labels[row]) for row in np.flatnonzero(~held)}
        if learned != classes or held.sum() < len(classes) or _fewest(rows, units) < 2:  # noqa: PLR2004 - one for each part
            message = "a class is in one part only"
            raise ValueError(message)
    return held


def _fewest(rows: Rows, units: NDArray[np.int64]) -> int:
    """Count the sets of rows of the class that has the fewest."""
    labels = np.array(rows.labels)
    return min(len(np.unique(units[labels == label])) for label in np.unique(labels))


def _too_few(rows: Rows, units: NDArray[np.int64], share: float, key: str) -> str:
    bound = int(units.max()) + 1 < len(rows)
    of_what = " sets of rows that stay together" if bound else ""
    if not isinstance(rows.labels[0], int):
        return f"data.{key}: {share} of {len(rows)} rows cannot be held out: they are {int(units.max()) + 1}{of_what}. Add rows, or change data.{key}."
    return f"data.{key}: {share} of {len(rows)} rows cannot be held out so that every class is in both parts (the smallest class has {_fewest(rows, units)}{of_what}). Add rows to it, or change data.{key}."


def limit(rows: Rows, maximum: int | None, *, seed: int, key: str) -> Rows:
    """Keep a seeded, stratified sample of at most `maximum` rows, in the order of the file.

    Every class keeps its share within a row, and at least one row. Of numbers every tenth is such
    a class; the labels of multi-label keep their shares as far as rows allow.

    Raises:
        DataError: fewer rows are asked for than there are classes.
    """
    if maximum is None or maximum >= len(rows):
        return rows
    generator = np.random.default_rng(seed)
    if isinstance(rows.labels[0], tuple):
        return rows.take(_of_several_labels(rows, maximum, generator))
    labels = np.array(classes_of(rows) or [0] * len(rows))
    classes, counts = np.unique(labels, return_counts=True)
    if maximum < len(classes):
        if isinstance(rows.labels[0], int):
            message = f"data.{key}: {maximum} rows cannot hold all {len(classes)} classes. Ask for at least {len(classes)}."
            raise DataError(message)
        labels, classes, counts = np.zeros_like(labels), classes[:1] * 0, np.array([len(rows)])
    kept = [
        generator.choice(np.flatnonzero(labels == label), size, replace=False)
        for label, size in zip(classes, _quotas(counts, maximum), strict=True)
    ]
    return rows.take(sorted(np.concatenate(kept).tolist()))


def _of_several_labels(rows: Rows, maximum: int, generator: np.random.Generator) -> list[int]:
    """Choose rows of multi-label; the few that are missing or too many are any."""
    chosen = chosen_units(counts_of(rows), maximum / len(rows), generator)
    surplus = int(chosen.sum()) - maximum
    if surplus:
        movable = np.flatnonzero(chosen == (surplus > 0))
        chosen[generator.choice(movable, abs(surplus), replace=False)] ^= True
    return [int(row) for row in np.flatnonzero(chosen)]


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


def _quotas(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share `total` out in proportion to `counts`, at least one each, by largest remainder."""
    exact = counts * total / counts.sum()
    quotas: NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    while quotas.sum() != total:
        step = 1 if quotas.sum() < total else -1
        owed = np.where((step > 0) | (quotas > 1), step * (exact - quotas), -np.inf)
        quotas[owed.argmax()] += step
    return quotas
