"""The final score of a run, by task type, and the predictions of every row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peftune.adapters.saving import artifact_bytes
from peftune.baselines.simple import baseline_predictions, baseline_scores
from peftune.data.rows import Rows
from peftune.data.task_data import Task
from peftune.data.text_hashes import are_among, text_keys
from peftune.experiments.path import prepared_logits, without_path
from peftune.experiments.report import Cost
from peftune.findings.finding import LeakedScore
from peftune.models.architecture import head_of, trainable_parameters
from peftune.models.inference import seconds_of_each
from peftune.models.prepare import preparation_of
from peftune.recipe.training import TrainingSection
from peftune.seeds import stream_seed
from peftune.tasks import methods_of
from peftune.tasks.base import Prediction
from peftune.tasks.language_modeling import domain_learning, domain_lines, read_domain
from peftune.tasks.multi_label import best_thresholds
from peftune.tasks.scores import Learning
from peftune.training.train import TrainingResult


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
        thresholds: multi-label: decision thresholds, (labels,).
    """
    if not leaked.any():
        return None
    split, evaluation_rows = task.evaluation
    labels = np.asarray(evaluation_rows.labels)
    sound, methods = ~leaked, methods_of(task.task_name)
    return LeakedScore(
        split=split,
        n=len(evaluation_rows),
        leaked=int(leaked.sum()),
        metrics=methods.metrics(logits, labels, thresholds),
        metrics_without=methods.metrics(logits[sound], labels[sound], thresholds)
        if sound.any()
        else {},
    )


def leaked_rows(task: Task) -> NDArray[np.bool_]:
    """Return for each evaluation row whether its text was read in training or chose the checkpoint.

    Of language modeling none is: what is scored there are documents and not rows.
    """
    split, evaluation_rows = task.evaluation
    if not task.task_type.has_head:
        return np.zeros(len(evaluation_rows), dtype=np.bool_)
    read = [task.train] if split == "validation" else [task.train, task.validation]
    keys = text_keys(evaluation_rows.texts)
    seen = np.concatenate([text_keys(rows.texts) for rows in read])
    found: NDArray[np.bool_] = are_among(keys, seen)
    return found


TIMED_TEXTS = 32
"""Texts whose latency is measured, at most."""
TIMED_SECONDS = 5.0
"""Seconds after which no further text is timed."""


def cost_of(
    model: nn.Module, training: TrainingResult, artifact: Path, *, texts: Sequence[str]
) -> Cost:
    """Sum up a finished run.

    Args:
        model: the trained model.
        training: what training measured.
        artifact: the saved artifact folder.
        texts: the rows that were scored; of some of them the latency is measured. None of a task
            without labels.
    """
    trainable = sum(weight.numel() for weight in trainable_parameters(model).values())
    # PEFT keeps the untrained head beside the trained one, which is counted once; a head that
    # takes no part is not counted at all.
    frozen_head = sum(
        weight.numel() for weight in head_of(model).parameters() if not weight.requires_grad
    )
    reasons = []
    if training.seconds is None:
        reasons.append("train_seconds: the run was resumed, and earlier time is not counted")
    if training.peak_memory_bytes is None and training.resumed_from == training.steps:
        reasons.append("peak_memory_bytes: the run was resumed after its last step")
    elif training.peak_memory_bytes is None:
        reasons.append("peak_memory_bytes: this system does not tell a process its peak memory")
    if not texts:
        keys = "latency_median_ms, latency_p95_ms, latency_texts, latency_device"
        reasons.append(f"{keys}: a task without labels classifies no text")
    return Cost(
        train_seconds=training.seconds,
        train_examples_per_second=training.examples / training.seconds
        if training.seconds
        else None,
        peak_memory_bytes=training.peak_memory_bytes,
        trainable_parameters=trainable,
        total_parameters=sum(weight.numel() for weight in model.parameters()) - frozen_head,
        artifact_bytes=artifact_bytes(artifact),
        examples_seen=training.examples,
        steps=training.steps,
        train_dtype="bfloat16" if training.bf16 else "float32",
        reason="; ".join(reasons) or None,
        **(_latency(model, texts) if texts else {}),
    )


def _latency(model: nn.Module, texts: Sequence[str]) -> dict[str, Any]:
    """Time texts one by one: at most 32, evenly over all rows, and for about five seconds."""
    preparation = preparation_of(model)
    places = np.unique(np.linspace(0, len(texts) - 1, TIMED_TEXTS).round().astype(int))
    seconds = seconds_of_each(
        model,
        preparation.tokenizer,
        [texts[place] for place in places],
        max_length=preparation.max_length,
        limit=TIMED_SECONDS,
    )
    median, late = (float(value) for value in np.percentile(seconds, [50, 95]) * 1000)
    device = next(model.parameters()).device
    on_cuda = device.type == "cuda"
    return {
        "latency_median_ms": median,
        "latency_p95_ms": late,
        "latency_texts": len(seconds),
        "latency_device": torch.cuda.get_device_name(device) if on_cuda else device.type,
    }


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a trained model.

    Args:
        learning: the score.
        clean: the same on the rows that did not leak, by which findings, the verdict and the model
            card go; that on all rows where none leaked, or all did.
        lines: what `predictions.jsonl` says of each row.
        thresholds: multi-label: from which probability each label is assigned.
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
    split, evaluation_rows = task.evaluation
    curve, resampling = without_path(training.curve), stream_seed(section.seed, "bootstrap")
    if not task.task_type.has_head:
        domain = read_domain(model, evaluation_rows)
        learning = domain_learning(domain, split=split, curve=curve)
        return Scored(learning, learning, domain_lines(evaluation_rows, domain))
    methods, logits = methods_of(task.task_name), prepared_logits(model, evaluation_rows.texts)
    thresholds = decision_thresholds(model, section, task)
    simple = baseline_predictions(task, evaluation_rows)

    def scored_on(kept: Sequence[int]) -> Learning:
        rows = evaluation_rows.take(kept)
        kept_predictions = {name: [of[row] for row in kept] for name, of in simple.items()}
        return methods.score(
            logits[list(kept)],
            rows.labels,
            names=task.labels,
            split=split,
            metric=section.metric_for_best_model,
            thresholds=thresholds,
            baselines=baseline_scores(
                task,
                rows,
                predictions=kept_predictions,
                logits=logits[list(kept)],
                seed=resampling,
            ),
            curve=curve,
        )

    learning, clean = scored_on(range(len(evaluation_rows))), np.flatnonzero(~leaked).tolist()
    predicted = methods.predictions(logits, names=task.labels, thresholds=thresholds)
    lines = _prediction_lines(evaluation_rows, predicted, task)
    return Scored(
        learning,
        scored_on(clean) if 0 < len(clean) < len(evaluation_rows) else learning,
        lines,
        thresholds,
        leaked_score(task, logits, leaked, thresholds),
        _notes(leaked, {name: [task.labels[one] for one in of] for name, of in simple.items()}),
    )


def decision_thresholds(
    model: nn.Module, section: TrainingSection, task: Task
) -> tuple[float, ...] | None:
    """Return the decision threshold of each label; None where the task type has none."""
    if task.task_type.many_labels and section.label_threshold == "validation":
        return best_thresholds(
            prepared_logits(model, task.validation.texts), task.validation.labels
        )
    return methods_of(task.task_name).fixed_thresholds(section.label_threshold, len(task.labels))


def _notes(
    leaked: NDArray[np.bool_], baselines: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return for each row `leaked` where it did, and the baselines' labels by name."""
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
    methods = methods_of(task.task_name)
    for row, label, prediction in zip(rows.ids, rows.labels, predictions, strict=True):
        yield {"id": row, **methods.scored_row(prediction, label, names=task.labels)}
