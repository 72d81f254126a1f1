"""Rows held out: by class, label, number and group, and never a text on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from peftune.data.rows import Rows
from peftune.data.splits import hold_out, limit
from peftune.errors import DataError


def rows_of(
    labels: Sequence[Any], *, texts: Sequence[str] = (), groups: Sequence[str] | None = None
) -> Rows:
    """Make rows; their texts differ unless they are given."""
    count = len(labels)
    return Rows(
        tuple(map(str, range(count))),
        tuple(texts) or tuple(f"text {i}" for i in range(count)),
        tuple(labels),
        groups,
    )


def numbers(rows: Rows) -> list[int]:
    """Return the places of the rows in what was split."""
    return list(map(int, rows.ids))


def several_labels(count: int) -> tuple[tuple[float, ...], ...]:
    """Draw twelve labels a row, the rarest in one row of two hundred."""
    shares = np.geomspace(0.5, 0.005, 12)
    cells = np.random.default_rng(0).random((count, 12)) < shares
    return tuple(tuple(map(float, row)) for row in cells)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", [0, 7])
def test_rows_that_nothing_binds_are_split_as_scikit_learn_does(share: float, seed: int) -> None:
    """Without groups and equal texts the split is that of `train_test_split`, row for row."""
    labels = [0, 1, 1, 2] * 50

    stay, held = hold_out(rows_of(labels), share, seed=seed, key="validation_split")

    left, right = train_test_split(
        np.arange(200), test_size=share, stratify=labels, random_state=seed
    )
    assert numbers(stay) == sorted(left)
    assert numbers(held) == sorted(right)


def test_equal_texts_are_held_out_together() -> None:
    """Texts that differ by case, links, handles or white space count as equal."""
    texts = [f"text {i}" for i in range(100)]
    for copy, text in {
        3: "TEXT 1",
        5: "@you text  1",
        60: "text 1 https://x.org",
        70: "text 2",
    }.items():
        texts[copy] = text

    for seed in range(20):
        stay, held = hold_out(
            rows_of([0, 1] * 50, texts=texts), 0.3, seed=seed, key="validation_split"
        )

        for bound in ({1, 3, 5, 60}, {2, 70}):
            assert bound <= set(numbers(stay)) or bound <= set(numbers(held))
        assert abs(len(held) - 30) <= 2
        assert abs(held.labels.count(0) - 15) <= 2


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_group_is_on_one_side_and_classes_keep_their_share(share: float) -> None:
    """Few large groups and many small ones fill both parts in proportion."""
    draw = np.random.default_rng(1)
    groups = tuple(f"author {number % 300}" for number in draw.zipf(1.6, 3000))
    labels = draw.choice(3, 3000, p=[0.6, 0.35, 0.05]).tolist()
    rows = rows_of(labels, groups=groups)

    stay, held = hold_out(rows, share, seed=0, key="validation_split")

    assert stay.groups is not None
    assert held.groups is not None
    assert not {*stay.groups} & {*held.groups}
    assert sorted(numbers(stay) + numbers(held)) == list(range(3000))
    assert abs(len(held) / 3000 - share) < 0.01
    for label, count in Counter(labels).items():
        assert abs(held.labels.count(label) / count - share) < 0.03
    # Groups of every size are held out: not the small ones alone.
    assert abs(len({*held.groups}) / len({*groups}) - share) < 0.1


def test_groups_with_a_text_in_common_are_one() -> None:
    """What two authors both wrote would be in both parts otherwise."""
    groups = [f"author {i // 2}" for i in range(40)]
    texts = [f"text {i}" for i in range(40)]
    texts[10] = texts[0]

    for seed in range(20):
        stay, held = hold_out(
            rows_of([0, 1] * 20, texts=texts, groups=groups), 0.5, seed=seed, key="test_split"
        )

        assert {0, 1, 10, 11} <= set(numbers(stay)) or {0, 1, 10, 11} <= set(numbers(held))


def test_rows_without_a_group_or_a_text_are_free() -> None:
    """A missing author is not one author of many rows, and blank texts are not one text."""
    rows = rows_of([0, 1] * 50, texts=[" "] * 100, groups=[""] * 100)

    stay, held = hold_out(rows, 0.2, seed=0, key="validation_split")

    assert (len(stay), len(held)) == (80, 20)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_every_label_of_several_keeps_its_share(share: float) -> None:
    """Rare labels too, within two rows; a random choice is off by more."""
    labels = several_labels(4000)

    stay, held = hold_out(rows_of(labels), share, seed=0, key="validation_split")

    off = np.array(held.labels).sum(axis=0) - share * np.array(labels).sum(axis=0)
    assert np.abs(off).max() < 2
    assert abs(len(held) - share * 4000) <= 2
    assert len(stay) + len(held) == 4000
    chance = np.random.default_rng(0).choice(4000, len(held), replace=False)
    by_chance = np.array(labels)[chance].sum(axis=0) - share * np.array(labels).sum(axis=0)
    assert np.abs(by_chance).max() > 5


def test_a_label_that_is_not_known_is_neither_yes_nor_no() -> None:
    """Rows that know a label are divided among the parts by what they know."""
    nan = float("nan")
    labels = [(1.0, nan)] * 20 + [(0.0, nan)] * 60 + [(nan, 1.0)] * 20

    _, held = hold_out(rows_of(labels), 0.25, seed=0, key="validation_split")

    assert [str(label) for label in held.labels].count("(1.0, nan)") == 5
    assert [str(label) for label in held.labels].count("(nan, 1.0)") == 5


def test_numbers_are_held_out_from_low_to_high() -> None:
    """Every tenth of the values has its share in both parts."""
    values = np.random.default_rng(0).lognormal(size=1000).tolist()

    _, held = hold_out(rows_of(values), 0.2, seed=0, key="validation_split")

    edges = np.quantile(values, np.linspace(0, 1, 11))
    counts, _ = np.histogram(held.labels, edges)
    assert len(held) == 200
    assert np.abs(counts - 20).max() <= 1


@pytest.mark.parametrize(
    "labels",
    [
        several_labels(500),
        np.random.default_rng(0).random(500).tolist(),
        [None] * 500,
        [0, 1] * 250,
    ],
    ids=["several labels", "numbers", "documents", "classes"],
)
def test_a_choice_of_rows_is_seeded_and_in_the_order_of_the_file(labels: Sequence[Any]) -> None:
    """The same seed chooses the same rows, another seed others, of every task type."""
    rows = rows_of(labels)
    for choose in (
        lambda seed: hold_out(rows, 0.2, seed=seed, key="k")[1],
        lambda seed: limit(rows, 100, seed=seed, key="k"),
    ):
        first, again, other = (numbers(choose(seed)) for seed in (0, 0, 1))

        assert len(first) == pytest.approx(100, abs=2)
        assert first == again == sorted(first)
        assert first != other


@pytest.mark.parametrize("maximum", [1, 7, 50, 499])
def test_a_limit_holds_for_every_kind_of_task(maximum: int) -> None:
    """As many rows as asked for, each once; labels and numbers keep their shares."""
    values = np.random.default_rng(0).random(500)
    several = several_labels(500)

    by_number = limit(rows_of(values.tolist()), maximum, seed=0, key="k")
    by_label = limit(rows_of(several), maximum, seed=0, key="k")

    assert len(set(numbers(by_number))) == len(set(numbers(by_label))) == maximum
    if maximum >= 50:
        assert np.mean(by_number.labels) == pytest.approx(values.mean(), abs=0.02)
        share = maximum / 500
        off = np.array(by_label.labels).sum(axis=0) - share * np.array(several).sum(axis=0)
        assert np.abs(off).max() < 2


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (
            [0, 1] * 20,
            ["everyone"] * 40,
            "data.test_split: 0.5 of 40 rows cannot be held out so that every class is in both parts (the smallest class has 1 sets of rows that stay together). Add rows to it, or change data.test_split.",
        ),
        (
            [0] * 20 + [1] * 20,
            [*map(str, range(20)), *["one"] * 20],
            "data.test_split: 0.5 of 40 rows cannot be held out so that every class is in both parts (the smallest class has 1 sets of rows that stay together). Add rows to it, or change data.test_split.",
        ),
        (
            [0.5, 1.5] * 20,
            ["everyone"] * 40,
            "data.test_split: 0.5 of 40 rows cannot be held out: they are 1 sets of rows that stay together. Add rows, or change data.test_split.",
        ),
    ],
    ids=["one group", "a class in one group", "numbers in one group"],
)
def test_rows_that_cannot_be_parted_are_refused(
    labels: Sequence[Any], groups: Sequence[str], message: str
) -> None:
    """The message says how many sets there are to choose from."""
    with pytest.raises(DataError) as caught:
        hold_out(rows_of(labels, groups=groups), 0.5, seed=0, key="test_split")
    assert str(caught.value) == message
