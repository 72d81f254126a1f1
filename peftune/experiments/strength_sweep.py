"""The way from the base to the tuned model: accuracy beside forgetting, at strengths and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peftune.adapters.artifact import Opened
from peftune.adapters.classifier import cleaned_for
from peftune.data.rows import Rows
from peftune.data.task_data import read_labeled
from peftune.errors import UsageError
from peftune.experiments.report import Forgetting, PathPoint, summarized
from peftune.files.reading import given_path
from peftune.findings.check_report import LeakedScore
from peftune.forgetting.before_and_after import Before, Measured, measure_tuned
from peftune.forgetting.measurement import ProbeText, change_of, measure_plainly, read_probe_texts
from peftune.models.inference import fit_head, predict_logits, with_head
from peftune.models.interpolation import Strength, at_strength
from peftune.models.prepare import based_on_artifact, preparation_of
from peftune.probes import Measurement, Probe
from peftune.recipe.schema import PathSection
from peftune.recipe.task_type import has_head
from peftune.tasks.evaluation import judge, task_metrics
from peftune.tasks.scores import Learning, learned_something

logger = logging.getLogger(__name__)

_KEY = "path_"
_FORGETTING = "path_forgetting_"


class PathCallback(TrainerCallback):
    """Measure the reported rows and texts at every evaluation, without any say in the training.

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
    """Return the tuned model as a point, from what was measured of it."""
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
    moved = {
        text.label: change_of(text.probe, now, then)
        for text, then, now in zip(texts, assumed, settled, strict=True)
    }
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
    """Measure a trained model between its base and itself; the head stays as it was tuned.

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
    preparation = preparation_of(model)
    if not preparation.strategy.trains_backbone:
        return [end]
    logger.info("measuring the way from the base to the tuned model")
    points = []
    for strength in (0.0, *sorted(section.strengths)):
        with at_strength(model, preparation.before, strength, keep_head=True):
            scores = _scores(model, rows, leaked)
            forgetting = (
                _forgetting(model, texts, measured.before.measured)
                if strength or based_on_artifact(model)
                else {text.label: 0.0 for text in texts}
            )
        points.append(PathPoint(strength, None, forgetting=forgetting, **scores))
    return [*points, end]


def _scores(model: nn.Module, rows: Rows, leaked: NDArray[np.bool_]) -> dict[str, float | None]:
    """Score a model as a point is: accuracy and macro F1, and accuracy where rows did not leak."""
    preparation = preparation_of(model)
    if not has_head(preparation.task):
        return {"accuracy": None, "macro_f1": None}
    logits = predict_logits(
        model, preparation.tokenizer, rows.texts, max_length=preparation.max_length
    )
    labels = np.asarray(rows.labels)
    metrics = task_metrics(logits, labels, preparation.task)
    scores = {name: metrics.get(name) for name in ("accuracy", "macro_f1")}
    if leaked.any() and not leaked.all():
        without = task_metrics(logits[~leaked], labels[~leaked], preparation.task)
        scores["accuracy_without_leaked"] = without.get("accuracy")
    return scores


def _forgetting(
    model: nn.Module, texts: Sequence[ProbeText], before: Sequence[Measurement]
) -> dict[str, float]:
    after = measure_plainly(model, preparation_of(model).tokenizer, texts)
    return {
        text.label: change_of(text.probe, first, now)
        for text, first, now in zip(texts, before, after, strict=True)
    }


Head = Literal["kept", "refitted"]


@dataclass(frozen=True, slots=True)
class Point:
    """A model at one strength.

    Args:
        strength: how far from the base.
        head: whether the classification head is the tuned model's or fitted to this strength.
        learning: the score on the labeled rows; None where there are none.
        forgetting: what the probes found.
    """

    strength: Strength
    head: Head
    learning: Learning | None
    forgetting: Forgetting


@dataclass(frozen=True, slots=True)
class StrengthInputs:
    """What a measurement reads.

    Args:
        name: name of the labeled file.
        rows: rows to score on.
        fit: rows to refit the head on.
        texts: probes with their documents.
    """

    name: str
    rows: Rows | None
    fit: Rows | None
    texts: Sequence[ProbeText]


def read_strength_inputs(
    opened: Opened,
    *,
    head: Head,
    file: str | Path | None,
    fit_file: str | Path | None,
    probes: Sequence[Probe],
    columns: tuple[str, str],
    empty_text: str,
) -> StrengthInputs:
    """Read and check all there is to read, before a model is loaded."""
    manifest = opened.manifest
    if not opened.strategy.trains_backbone:
        message = f"The strategy '{opened.strategy.name}' leaves the backbone as it is, so every strength is the same model; there is nothing to rescale."
        raise UsageError(message)
    if manifest.task_name != "single-label" and (file is not None or head == "refitted"):
        message = f"Strengths are scored by accuracy, and heads refitted, for single-label tasks ('{opened.name}' is {manifest.task_name}). Leave the labeled rows out and keep the head."
        raise UsageError(message)
    _refuse_head_choice(head, file, fit_file)

    def rows_of(path: str | Path | None) -> Rows | None:
        if path is None:
            return None
        rows = read_labeled(
            given_path(path, "file"),
            names=manifest.labels,
            text=columns[0],
            label_column=columns[1],
            empty_text=empty_text,
        )
        return dataclasses.replace(rows, texts=cleaned_for(manifest, rows.texts))

    name = Path(file).name if file is not None else ""
    return StrengthInputs(name, rows_of(file), rows_of(fit_file), read_probe_texts(probes))


def _refuse_head_choice(head: Head, file: str | Path | None, fit_file: str | Path | None) -> None:
    if head not in get_args(Head):
        message = f"The head is kept or refitted (got '{head}')."
        raise UsageError(message)
    if head == "refitted" and fit_file is None:
        message = "A refitted head needs labeled rows to fit on: fit_file=… in Python, --fit-file on the command line."
        raise UsageError(message)
    if head == "kept" and fit_file is not None:
        message = f"A head that is kept is not fitted, so '{fit_file}' would not be read. Leave it out, or let the head be refitted."
        raise UsageError(message)
    if (
        file is not None
        and fit_file is not None
        and Path(file).resolve() == Path(fit_file).resolve()
    ):
        message = f"The head would be fitted to the rows of '{file}' and scored on the same. Fit it on training rows."
        raise UsageError(message)


@contextlib.contextmanager
def acting_at(model: nn.Module, strength: Strength, fit: Rows | None) -> Iterator[None]:
    """Let a model act at a strength inside, with its own head or one that is fitted there."""
    with at_strength(model, preparation_of(model).before, strength, keep_head=True):
        if fit is None:
            yield
            return
        with with_head(model, fit_head(model, fit.texts, fit.labels)):
            yield


def measured_point(
    model: nn.Module, strength: Strength, head: Head, inputs: StrengthInputs, before: Before
) -> Point:
    """Measure a model as it acts now.

    Args:
        model: a prepared model, at the strength.
        strength: which one that is.
        head: which head it has.
        inputs: what to score it on.
        before: its base, from `measure_before`.
    """
    learning = None if inputs.rows is None else _score(model, inputs.rows, inputs.name)
    forgetting = summarized(
        inputs.texts,
        measure_tuned(model, inputs.texts, before),
        learned=None if learning is None else learned_something(learning),
        without="no probes were given",
    )
    return Point(strength, head, learning, forgetting)


def _score(model: nn.Module, rows: Rows, name: str) -> Learning:
    preparation = preparation_of(model)
    logits = predict_logits(
        model, preparation.tokenizer, rows.texts, max_length=preparation.max_length
    )
    # The training rows are not at hand; no constant answer scores higher on these than this one.
    commonest = Counter(rows.labels).most_common(1)[0][1]
    return judge(
        logits,
        rows.labels,
        names=preparation.labels,
        split=name,
        baselines={"majority": {"accuracy": commonest / len(rows)}},
    )
