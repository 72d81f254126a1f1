"""The final score of a run, by kind of task, and what it leaves of every row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from peftune.baselines.without_model import baseline_predictions, baseline_scores
from peftune.checks.result import LeakedScore
from peftune.data.rows import Rows
from peftune.data.task import Task
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of
from peftune.recipe.task import has_head
from peftune.recipe.training import TrainingSection
from peftune.runs.domain import domain_learning, domain_lines, read_domain
from peftune.runs.leaked_score import leaked_score
from peftune.runs.path import without_path
from peftune.seeds import stream_seed
from peftune.tasks.judge import judge
from peftune.tasks.learning import Learning
from peftune.tasks.multi_label import best_thresholds
from peftune.tasks.predictions import Prediction, predictions_of, scored_row
from peftune.tasks.thresholds import fixed_thresholds
from peftune.training.train import TrainingResult


@dataclass(frozen=True, slots=True)
class Scored:
    """What a trained model scored.

    Args:
        learning: the score.
        clean: the same on the rows that did not leak, by which findings, the verdict and the model
            card go; that on all rows where none leaked, or all did.
        lines: what `predictions.jsonl` says of each row.
        thresholds: multi-label: from which probability each label is said.
        leaked: the score without the rows whose text was read in training, if there are any.
        notes: what `texts.jsonl` says of each row beside its text: whether it leaked, and what the
            baselines say of it.
    """

    learning: Learning
    clean: Learning
    lines: Iterable[Mapping[str, Any]]
    thresholds: tuple[float, ...] | None = None
    leaked: LeakedScore | None = None
    notes: Sequence[Mapping[str, Any]] = ()


def score(
    model: nn.Module,
    task: Task,
    training: TrainingResult,
    section: TrainingSection,
    leaked: NDArray[np.bool_],
) -> Scored:
    """Score a trained model on the rows of the final score.

    Args:
        model: a prepared model, trained.
        task: its rows.
        training: how training went.
        section: resolved `training` section.
        leaked: from `leaked_rows`, (rows,).
    """
    split, judged = task.judged
    curve, resampling = without_path(training.curve), stream_seed(section.seed, "bootstrap")
    if not has_head(task.kind):
        domain = read_domain(model, judged)
        learning = domain_learning(domain, split=split, curve=curve)
        return Scored(learning, learning, domain_lines(judged, domain))
    logits, thresholds = _logits(model, judged), said_from(model, section, task)
    simple = baseline_predictions(task, judged)

    def scored_on(kept: Sequence[int]) -> Learning:
        rows = judged.take(kept)
        said = {name: [of[row] for row in kept] for name, of in simple.items()}
        return judge(
            logits[list(kept)],
            rows.labels,
            names=task.labels,
            split=split,
            kind=task.kind,
            metric=section.metric_for_best_model,
            thresholds=thresholds,
            baselines=baseline_scores(
                task, rows, predictions=said, logits=logits[list(kept)], seed=resampling
            ),
            curve=curve,
        )

    learning, clean = scored_on(range(len(judged))), np.flatnonzero(~leaked).tolist()
    said = predictions_of(logits, kind=task.kind, names=task.labels, thresholds=thresholds)
    lines = _prediction_lines(judged, said, task)
    return Scored(
        learning,
        scored_on(clean) if 0 < len(clean) < len(judged) else learning,
        lines,
        thresholds,
        leaked_score(task, logits, leaked, thresholds),
        _notes(leaked, {name: [task.labels[one] for one in of] for name, of in simple.items()}),
    )


def _logits(model: nn.Module, rows: Rows) -> NDArray[np.float32]:
    preparation = preparation_of(model)
    return predict_logits(
        model, preparation.tokenizer, rows.texts, max_length=preparation.max_length
    )


def said_from(model: nn.Module, section: TrainingSection, task: Task) -> tuple[float, ...] | None:
    """Return from which probability each label is said; None where labels exclude each other."""
    if task.kind != "multi-label":
        return None
    if section.label_threshold == "validation":
        return best_thresholds(_logits(model, task.validation), task.validation.labels)
    return fixed_thresholds(section.label_threshold, len(task.labels))


def _notes(
    leaked: NDArray[np.bool_], baselines: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Say of each row what is not the model's: `leaked` where it did, `baselines` by name."""
    return [
        {
            **({"leaked": True} if one else {}),
            **(
                {"baselines": {name: of[row] for name, of in baselines.items()}}
                if baselines
                else {}
            ),
        }
        for row, one in enumerate(leaked)
    ]


def _prediction_lines(
    rows: Rows, predictions: Sequence[Prediction], task: Task
) -> Iterator[Mapping[str, Any]]:
    for row, label, prediction in zip(rows.ids, rows.labels, predictions, strict=True):
        yield {"id": row, **scored_row(prediction, label, kind=task.kind, names=task.labels)}
