"""The rows that every contender learns: the same ones, in a file that each of them reads."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from peftune.bundled import TASKS, bundled_folder

LABELS = ("negative", "neutral", "positive")
"""Label names of the bundled posts, in the order of their ids."""

MAX_LENGTH = 128
"""Tokens kept of each text by all contenders but the tutorial, which keeps as many as there are."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text and the id of its label."""

    text: str
    label: int


def bundled_rows(split: str) -> list[Row]:
    """Read a split of the bundled posts, in an order that tells nothing of the labels."""
    file = bundled_folder("bundled:posts", among=TASKS) / f"{split}.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [Row(line["text"], LABELS.index(line["label"])) for line in lines]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[place] for place in order]


def csv_rows(path: Path) -> list[Row]:
    """Read a user's own rows: columns `text` and `label`, any three labels; blank texts are left out.

    Raises:
        ValueError: the file has other columns, or another number of labels.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines or not {"text", "label"} <= set(lines[0]):
        message = f"'{path}' needs rows with the columns 'text' and 'label'."
        raise ValueError(message)
    names = sorted({line["label"] for line in lines})
    if len(names) != len(LABELS):
        message = (
            f"'{path}' has {len(names)} labels; the benchmark's classifier has {len(LABELS)}."
        )
        raise ValueError(message)
    return [
        Row(line["text"], names.index(line["label"])) for line in lines if line["text"].strip()
    ]


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """Write rows as JSON lines, as `read_rows` reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: str | Path, count: int | None = None) -> list[Row]:
    """Read rows, the first of them again where more are asked for than there are."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [Row(**json.loads(line)) for line in lines]
    return rows if count is None else list(islice(cycle(rows), count))


def token_lengths(rows: Sequence[Row], base: Path) -> list[int]:
    """Count the tokens of each text, as far as they are kept."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    encoded = tokenizer([row.text for row in rows], truncation=True, max_length=MAX_LENGTH)
    return [len(ids) for ids in encoded["input_ids"]]


def described(rows: Sequence[Row], lengths: Sequence[int], source: str) -> dict[str, object]:
    """Say what was learned: the source, a hash of the rows, and how long the texts are in tokens."""
    digest = hashlib.sha256("".join(f"{row.label} {row.text}\n" for row in rows).encode())
    p50, p90, p99 = np.percentile(lengths, [50, 90, 99]).tolist()
    return {
        "source": source,
        "count": len(rows),
        "sha256": digest.hexdigest(),
        "tokens": {
            "mean": round(float(np.mean(lengths)), 2),
            "p50": p50,
            "p90": p90,
            "p99": p99,
            "max": max(lengths),
        },
    }
