"""The final score of a run, by kind of task, and what it leaves of every row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from peftune.baselines.without_model import baseline_scores
from peftune.data.rows import Rows
from peftune.data.task import Task
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of
from peftune.recipe.task import has_head
from peftune.runs.domain import domain_learning, domain_lines, read_domain
from peftune.runs.path import without_path
from peftune.seeds import stream_seed
from peftune.training.learning import Learning, judge
from peftune.training.train import TrainingResult


@dataclass(frozen=True, slots=True)
class Scored:
    """What a trained model scored.

    Args:
        learning: the score.
        lines: what `predictions.jsonl` says of each row.
    """

    learning: Learning
    lines: Iterable[Mapping[str, Any]]


def score(model: nn.Module, task: Task, training: TrainingResult, *, seed: int) -> Scored:
    """Score a trained model on the rows of the final score.

    Args:
        model: a prepared model, trained.
        task: its rows.
        training: how training went.
        seed: the run's seed.
    """
    split, judged = task.judged
    curve, resampling = without_path(training.curve), stream_seed(seed, "bootstrap")
    if not has_head(task.kind):
        domain = read_domain(model, judged)
        learning = domain_learning(domain, split=split, seed=resampling, curve=curve)
        return Scored(learning, domain_lines(judged, domain))
    logits = _logits(model, judged)
    learning = judge(
        logits,
        judged.labels,
        names=task.labels,
        split=split,
        seed=resampling,
        baselines=baseline_scores(task.train, judged),
        curve=curve,
    )
    return Scored(learning, _prediction_lines(judged, logits, task.labels))


def _logits(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
    preparation = preparation_of(model)
    return predict_logits(
        model, preparation.tokenizer, rows.texts, max_length=preparation.max_length
    )


def _prediction_lines(
    rows: Rows, logits: NDArray[np.float32], names: Sequence[str]
) -> Iterable[Mapping[str, Any]]:
    for index, row in enumerate(softmax(logits.astype(np.float64), axis=-1)):
        yield {
            "id": rows.ids[index],
            "label": names[rows.labels[index]],
            "predicted": names[int(row.argmax())],
            "probabilities": {name: float(value) for name, value in zip(names, row, strict=True)},
        }
