"""The path from the base to the tuned model: accuracy and forgetting at strengths and at checkpoints."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peftune.data.rows import Rows
from peftune.experiments.report import Forgetting, PathPoint
from peftune.findings.finding import LeakedScore
from peftune.forgetting.before_and_after import Measured
from peftune.forgetting.measurement import ProbeText, changes_of, measure_plainly
from peftune.models.inference import fit_head, predict_logits, with_head
from peftune.models.interpolation import Strength, at_strength
from peftune.models.prepare import based_on_artifact, preparation_of
from peftune.probes import Measurement
from peftune.recipe.schema import PathSection
from peftune.tasks import methods_of
from peftune.tasks.scores import Learning

logger = logging.getLogger(__name__)

_Strength = TypeVar("_Strength", float, Strength)
_KEY = "path_"
_FORGETTING = "path_forgetting_"


class PathCallback(TrainerCallback):
    """Measure the evaluation rows and the probes at every evaluation; the training does not read it.

    Args:
        rows: the rows of the final score.
        leaked: from `leaked_rows`, (rows,).
        texts: the probes of the report, with their documents.
        before: the base on them.
    """

    def __init__(
        self,
        rows: Rows,
        leaked: NDArray[np.bool_],
        texts: Sequence[ProbeText],
        before: Sequence[Measurement],
    ) -> None:
        self._rows = rows
        self._leaked = leaked
        self._texts = texts
        self._before = before

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002 - Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        **kwargs: Any,  # noqa: ANN401 - Trainer's signature
    ) -> None:
        """Add a point to the log, which a resumed run goes on with."""
        model: nn.Module = kwargs["model"]
        scores = _scores(model, self._rows, self._leaked)
        forgetting = _forgetting(model, self._texts, self._before)
        point: dict[str, Any] = {
            "epoch": state.epoch or 0.0,
            "step": state.global_step,
            **{f"{_KEY}{name}": value for name, value in scores.items()},
            **{f"{_FORGETTING}{name}": value for name, value in forgetting.items()},
        }
        state.log_history.append(point)


def without_path(curve: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the points of a training curve alone."""
    return [point for point in curve if f"{_KEY}accuracy" not in point]


def end_of_path(
    learning: Learning, forgetting: Forgetting, leaked: LeakedScore | None = None
) -> PathPoint:
    """Return the tuned model as a point of the path, from its scores."""
    changes = {probe.name: probe.forgetting for probe in forgetting}
    without = None if leaked is None else leaked.metrics_without.get("accuracy")
    return PathPoint(1.0, None, learning.accuracy, learning.macro_f1, changes, without)


def path_at_checkpoints(
    curve: Sequence[Mapping[str, Any]],
    texts: Sequence[ProbeText],
    *,
    assumed: Sequence[Measurement],
    settled: Sequence[Measurement],
) -> list[PathPoint]:
    """Read the points that a `PathCallback` left in a training curve.

    Args:
        curve: of the training.
        texts: the probes of the report.
        assumed: the base on them, as the callback was given it.
        settled: the base on them, as the report has it: cached scores that did not repeat were
            measured again after the training.
    """
    moved = changes_of(texts, settled, assumed)
    return [
        PathPoint(
            strength=1.0,
            step=point["step"],
            accuracy=point[f"{_KEY}accuracy"],
            macro_f1=point[f"{_KEY}macro_f1"],
            forgetting={
                name: point[f"{_FORGETTING}{name}"] + change for name, change in moved.items()
            },
            # A training that an earlier version began has no such key.
            accuracy_without_leaked=point.get(f"{_KEY}accuracy_without_leaked"),
        )
        for point in curve
        if f"{_KEY}accuracy" in point
    ]


def path_at_strengths(
    model: nn.Module,
    section: PathSection,
    *,
    rows: Rows,
    texts: Sequence[ProbeText],
    measured: Measured,
    end: PathPoint,
    leaked: NDArray[np.bool_],
) -> list[PathPoint]:
    """Measure a trained model at strengths between its base and itself, with the tuned head.

    Args:
        model: a prepared model, trained; its weights are afterwards as they were.
        section: which strengths.
        rows: the rows of the final score.
        texts: the probes of the report, with their documents.
        measured: the base on them.
        end: the model as it is, measured already.
        leaked: from `leaked_rows`, (rows,).

    Returns:
        Points from the base, whose forgetting is zero by definition, to `end`. Only `end` for a
        strategy that leaves the backbone as it is: every strength of it is the same model.
    """
    if not preparation_of(model).strategy.trains_backbone:
        return [end]
    logger.info("measuring the path from the base to the tuned model")
    points = []
    for strength in at_each(model, (0.0, *sorted(section.strengths))):
        forgetting = (
            _forgetting(model, texts, measured.before.measured)
            if strength or based_on_artifact(model)
            else {text.label: 0.0 for text in texts}
        )
        scores = _scores(model, rows, leaked)
        points.append(PathPoint(strength, None, forgetting=forgetting, **scores))
    return [*points, end]


def at_each(
    model: nn.Module, strengths: Sequence[_Strength], *, fit: Rows | None = None
) -> Iterator[_Strength]:
    """Set a trained model to each strength in turn; its weights are afterwards as they were.

    Args:
        model: a prepared model, trained.
        strengths: from 0, the base, to 1, the tuned model.
        fit: rows to fit a classification head on at each strength; otherwise the head is kept.

    Yields:
        The strength that the model has now.
    """
    for strength in strengths:
        with contextlib.ExitStack() as stack:
            before = preparation_of(model).before
            stack.enter_context(at_strength(model, before, strength, keep_head=True))
            if fit is not None:
                stack.enter_context(with_head(model, fit_head(model, fit.texts, fit.labels)))
            yield strength


def prepared_logits(model: nn.Module, texts: Sequence[str]) -> NDArray[np.float32]:
    """Classify texts with a prepared model: (texts, labels)."""
    preparation = preparation_of(model)
    return predict_logits(model, preparation.tokenizer, texts, max_length=preparation.max_length)


def _scores(model: nn.Module, rows: Rows, leaked: NDArray[np.bool_]) -> dict[str, float | None]:
    """Score a model for a point: accuracy and macro F1, and the accuracy on rows that did not leak."""
    preparation = preparation_of(model)
    if not preparation.task_type.has_head:
        return {"accuracy": None, "macro_f1": None}
    logits, labels = prepared_logits(model, rows.texts), np.asarray(rows.labels)
    metrics = methods_of(preparation.task).metrics(logits, labels)
    scores = {name: metrics.get(name) for name in ("accuracy", "macro_f1")}
    if leaked.any() and not leaked.all():
        without = methods_of(preparation.task).metrics(logits[~leaked], labels[~leaked])
        scores["accuracy_without_leaked"] = without.get("accuracy")
    return scores


def _forgetting(
    model: nn.Module, texts: Sequence[ProbeText], before: Sequence[Measurement]
) -> dict[str, float]:
    after = measure_plainly(model, preparation_of(model).tokenizer, texts)
    return changes_of(texts, before, after)
