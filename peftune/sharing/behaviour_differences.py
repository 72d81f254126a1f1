"""What two artifacts make of the same texts: as recorded in them, and of the rows of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from peftune.artifacts.columns import columns_of
from peftune.artifacts.manifest import Manifest
from peftune.data.texts import read_texts
from peftune.errors import UsageError
from peftune.recipe.task import CLASSIFICATION, has_head
from peftune.tasks.decisions import decisions

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BehaviourDifference:
    """How far what two artifacts make of the same texts lies apart.

    Args:
        n: texts.
        largest: largest absolute difference of a logit; of language modeling of a token's
            log-probability, in nats. None where the labels differ.
        differ: share of the texts of which they say other labels; None where there are no labels.
        ci95: exact 95% interval of that share among texts like these; None for the recorded texts,
            which are no sample.
    """

    n: int
    largest: float | None
    differ: float | None
    ci95: tuple[float, float] | None = None


def recorded_differences(a: Manifest, b: Manifest) -> dict[str, BehaviourDifference]:
    """Compare what two manifests record, by precision; no model is needed."""
    return {
        precision: _difference(_rows(rows), _rows(b.behaviour.logits[precision]), a, b)
        for precision, rows in a.behaviour.logits.items()
        if precision in b.behaviour.logits
    }


def why_not_comparable(a: Manifest, b: Manifest) -> str | None:
    """Say why two records cannot be set against each other; None if they can."""
    if a.task_name != b.task_name:
        return f"they have learned different kinds of task: {a.task_name} and {b.task_name}"
    if a.labels != b.labels:
        return "their labels differ, or stand in another order"
    if a.behaviour.texts != b.behaviour.texts:
        return "they were recorded on different texts"
    sizes = [[len(row) for row in one.behaviour.logits["float32"]] for one in (a, b)]
    if sizes[0] != sizes[1]:
        return "they read the recorded texts as different numbers of tokens"
    return None


def refuse_other_task(a: Manifest, b: Manifest, names: tuple[str, str]) -> None:
    """Refuse to set artifacts against each other on a file that they answer in different ways.

    Raises:
        UsageError: they have learned different kinds of task, or one without a head.
    """
    if a.task_name != b.task_name or not has_head(a.task_name):
        message = f"Rows of a file cannot be set against each other: '{names[0]}' has learned {a.task_name}, '{names[1]}' {b.task_name}. Leave the file out."
        raise UsageError(message)


def read_rows(file: Path, manifest: Manifest, text_column: str | None) -> Sequence[str]:
    """Read the texts of a file, by the columns that an artifact was trained on.

    Raises:
        DataError: the file cannot be used.
        UsageError: it has no rows.
    """
    rows = read_texts(file, columns_of(manifest, text_column=text_column))
    if not len(rows):
        message = f"'{file}' has no rows. Name a file with texts."
        raise UsageError(message)
    return rows


def file_difference(
    logits: tuple[Logits, Logits], classifiers: tuple[Manifest, Manifest]
) -> BehaviourDifference:
    """Compare what two classifiers make of the rows of a file.

    Args:
        logits: of both, (rows, labels).
        classifiers: their manifests.
    """
    found = _difference(list(logits[0]), list(logits[1]), *classifiers)
    if found.differ is None:
        return found
    count = round(found.differ * found.n)
    interval = stats.binomtest(count, found.n).proportion_ci(0.95, method="exact")
    return BehaviourDifference(
        found.n, found.largest, found.differ, (float(interval.low), float(interval.high))
    )


def _difference(
    first: Sequence[Logits], second: Sequence[Logits], a: Manifest, b: Manifest
) -> BehaviourDifference:
    largest = None
    if a.labels == b.labels:
        steps = [
            float(np.abs(one - other).max()) for one, other in zip(first, second, strict=True)
        ]
        largest = max(steps)
    differ = None
    if a.task_name in CLASSIFICATION:
        said = [_said(np.stack(rows), one) for rows, one in ((first, a), (second, b))]
        changed = sum(one != other for one, other in zip(*said, strict=True))
        differ = changed / len(first)
    return BehaviourDifference(len(first), largest, differ)


def _said(logits: Logits, manifest: Manifest) -> list[frozenset[str]]:
    """Name the labels that are said of each text."""
    chosen = decisions(logits, kind=manifest.task_name, thresholds=manifest.label_thresholds)
    return [
        frozenset(label for label, is_said in zip(manifest.labels, row, strict=True) if is_said)
        for row in chosen
    ]


def _rows(recorded: Sequence[Sequence[float]]) -> list[Logits]:
    return [np.asarray(row, dtype=np.float32) for row in recorded]
