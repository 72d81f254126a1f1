"""The final score with and without the rows that leaked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.checks.result import LeakedScore
from peftune.data.keys import NO_TEXT, are_among, text_keys
from peftune.data.task import Task
from peftune.recipe.task import has_head
from peftune.tasks.judge import task_metrics


def leaked_score(
    task: Task,
    logits: NDArray[np.floating[Any]],
    leaked: NDArray[np.bool_],
    thresholds: Sequence[float] | None = None,
) -> LeakedScore | None:
    """Score with and without the leaked rows; None where none of the scored rows leaked.

    Args:
        task: the rows as they were learned and scored.
        logits: of the scored rows, (rows, labels).
        leaked: from `leaked_rows`, (rows,).
        thresholds: multi-label: probability from which a label is said.
    """
    if not leaked.any():
        return None
    split, judged = task.judged
    labels = np.asarray(judged.labels)
    sound = ~leaked
    return LeakedScore(
        split=split,
        n=len(judged),
        leaked=int(leaked.sum()),
        metrics=task_metrics(logits, labels, task.kind, thresholds),
        metrics_without=task_metrics(logits[sound], labels[sound], task.kind, thresholds)
        if sound.any()
        else {},
    )


def leaked_rows(task: Task) -> NDArray[np.bool_]:
    """Say of each scored row whether its text was read in training, or chose the checkpoint.

    Of language modeling none is: what is scored there are documents and not rows.
    """
    split, judged = task.judged
    if not has_head(task.kind):
        return np.zeros(len(judged), dtype=np.bool_)
    read = [task.train] if split == "validation" else [task.train, task.validation]
    keys = text_keys(judged.texts)
    seen = np.concatenate([text_keys(rows.texts) for rows in read])
    found: NDArray[np.bool_] = are_among(keys, seen) & (keys != NO_TEXT)
    return found
