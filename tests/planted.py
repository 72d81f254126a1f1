"""Sound data, and the faults that are planted in them to be found again."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
Splits = dict[str, Rows]

TRAIN, HELD_OUT = 60, 24
GENERAL = (
    "The river rises in the hills above the town and reaches the sea after eighty miles of slow water.",
    "Bread made with rye keeps for a week, which is why sailors of the north carried it on long journeys.",
    "A clock with a heavy pendulum loses a few seconds in summer, when the rod grows longer in the heat.",
)
_WORDS = re.findall(
    r"\w+",
    "the and was with from about there this that have which garden kettle morning bicycle window"
    " letter station market kitchen brother teacher painter doctor engine ticket blanket candle"
    " orange button pocket mirror ladder basket tunnel island valley forest meadow harbour castle"
    " silver copper velvet marble cotton thunder winter summer autumn evening supper dinner picnic"
    " walked carried painted repaired borrowed watered counted measured folded polished followed"
    " remembered whispered wandered listened laughed slowly quietly nearly seldom always twice",
)


def sound_splits(seed: int = 0) -> Splits:
    """Make rows without a fault: every text its own, two labels in equal number."""
    draw = np.random.default_rng(seed)
    return {
        split: [
            {
                "id": f"{split}-{row}",
                "text": " ".join(draw.choice(_WORDS, size=11, replace=False)),
                "label": "positive" if row % 2 else "negative",
                "author": f"{split} author {row // 2}",
                "score": str(round(1 + 4 * float(draw.random()), 2)),
                "loud": str(row % 2),
                "long": str(row // 2 % 2),
            }
            for row in range(TRAIN if split == "train" else HELD_OUT)
        ]
        for split in ("train", "validation", "test")
    }


def words(count: int, seed: int = 1) -> str:
    """Make a text of many words."""
    return " ".join(np.random.default_rng(seed).choice(_WORDS, size=count))


def write_splits(splits: Splits, folder: Path, kind: str) -> dict[str, str]:
    """Write rows as `csv` or `jsonl`; return the keys of `data` that name the files."""
    for split, rows in splits.items():
        path = folder / f"{split}.{kind}"
        if kind == "csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
                writer.writeheader()
                writer.writerows(rows)
        else:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {f"{split}_file": f"{split}.{kind}" for split in splits}


def write_recipe(folder: Path, data: Mapping[str, Any], *, task: str = "single-label") -> Path:
    """Write a recipe on such files, with a probe on general text."""
    general = [json.dumps({"text": text}) for text in GENERAL]
    (folder / "general.jsonl").write_text("\n".join(general) + "\n", encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "version: 1\n"
        "name: planted\n"
        f"task: {task}\n"
        'model: {name_or_path: "bundled:tiny-gpt2", max_length: 64}\n'
        f"data: {json.dumps(data)}\n"
        "strategy: {name: head-only}\n"
        "training: {num_train_epochs: 1, use_cpu: true}\n"
        "forgetting: {probes: [{type: lm-loss, name: general, file: general.jsonl}]}\n"
        "output_dir: out\n",
        encoding="utf-8",
    )
    return recipe


@dataclass(frozen=True)
class Fault:
    """A fault, how it is planted, and what must find it.

    Args:
        name: what kind it is.
        code: the check that finds it.
        plant: changes sound rows.
        rows: the rows that it must name, by split.
        status: how grave it is.
        beside: other checks that the same fault rightly sets off.
        kinds: files in which it can stand.
        data: keys of `data` that it needs.
        task: the task that it is a fault of.
    """

    name: str
    code: str
    plant: Callable[[Splits], object]
    rows: Mapping[str, Sequence[int]]
    status: str = "warn"
    beside: frozenset[str] = frozenset()
    kinds: tuple[str, ...] = ("csv", "jsonl")
    data: Mapping[str, Any] = field(default_factory=dict)
    task: str = "single-label"


def put(place: str, key: str, value: object) -> Callable[[Splits], object]:
    """Write a value into a cell, such as `train 7`."""
    split, row = place.split()

    def plant(splits: Splits) -> None:
        splits[split][int(row)][key] = value

    return plant


def change(
    place: str, how: Callable[[str], str], *, key: str = "text"
) -> Callable[[Splits], object]:
    """Change a cell."""
    split, row = place.split()

    def plant(splits: Splits) -> None:
        splits[split][int(row)][key] = how(splits[split][int(row)][key])

    return plant


def copied(
    source: str, target: str, how: Callable[[str], str] = str, *, key: str = "text"
) -> Callable[[Splits], object]:
    """Copy a cell to another row, changed in a way."""
    (split, row), (to_split, to_row) = source.split(), target.split()

    def plant(splits: Splits) -> None:
        splits[to_split][int(to_row)][key] = how(splits[split][int(row)][key])

    return plant


def every(split: str, key: str, value: Callable[[int], object]) -> Callable[[Splits], object]:
    """Write a column of a split anew."""

    def plant(splits: Splits) -> None:
        for row, cells in enumerate(splits[split]):
            cells[key] = value(row)

    return plant


def both(*plants: Callable[[Splits], object]) -> Callable[[Splits], object]:
    """Do one after the other."""

    def plant(splits: Splits) -> None:
        for each in plants:
            each(splits)

    return plant
