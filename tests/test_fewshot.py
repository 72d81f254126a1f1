"""Few-shot: the base prompted without any training, and training on k rows of each label."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from peftune.data.rows import Rows
from peftune.data.splits import per_label
from peftune.data.task import load_task
from peftune.errors import DataError
from peftune.recipe.schema import DataSection

NAMES = ("bad", "fine", "good")


def numbered(*counts: int) -> Rows:
    """Make rows of so many of each label, in turn."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    ids = tuple(str(index) for index in range(len(labels)))
    return Rows(ids, tuple(f"text {index}" for index in ids), tuple(labels))


# Training on k rows of each label.


def test_as_many_rows_of_each_label_are_kept_in_the_order_of_the_file() -> None:
    """However frequent a label is; the seed decides which rows, and nothing else does."""
    rows = numbered(40, 9, 20)

    first, again, other = (per_label(rows, 4, seed=seed, names=NAMES) for seed in (0, 0, 1))

    assert Counter(first.labels) == {0: 4, 1: 4, 2: 4}
    assert list(map(int, first.ids)) == sorted(map(int, first.ids))
    assert first.ids == again.ids
    assert first.ids != other.ids


def test_fewer_rows_of_one_seed_are_among_more() -> None:
    """So that what is learned from 4 and from 16 differs by the rows that were added."""
    rows = numbered(40, 16, 20)

    few, many = (set(per_label(rows, k, seed=0, names=NAMES).ids) for k in (4, 16))

    assert few < many


def test_a_label_with_too_few_rows_is_said_with_their_number() -> None:
    """Nobody learns from fewer rows than were asked for; a label without any counts as well."""
    with pytest.raises(DataError) as caught:
        per_label(numbered(40, 3), 4, seed=0, names=NAMES)

    assert str(caught.value) == (
        "data.train_examples_per_label: 4 rows of each label are asked for, but of the rows to learn from "
        "'fine' has 3, 'good' has 0. Ask for fewer, or add rows."
    )


def test_the_recipe_key_limits_the_rows_to_learn_from_alone(tmp_path: Path) -> None:
    """Validation and test rows stay as they are, and none of them is learned."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"t {i}", "label": NAMES[i % 3]}) + "\n" for i in range(90))
    )
    everything = DataSection(train_file=str(path), validation_split=0.2, test_split=0.2)
    few = everything.model_copy(update={"train_examples_per_label": 5})

    whole, task = load_task(everything), load_task(few)

    assert Counter(task.train.labels) == {0: 5, 1: 5, 2: 5}
    assert set(task.train.ids) < set(whole.train.ids)
    assert whole.test is not None
    assert task.test is not None
    assert (list(task.validation.ids), list(task.test.ids)) == (
        list(whole.validation.ids),
        list(whole.test.ids),
    )
