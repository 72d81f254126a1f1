"""Measure a tuned model at one strength: what is read, the score, and what the probes find."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torch import nn

from peftune.artifacts.columns import cleaned_for
from peftune.artifacts.opened import Opened
from peftune.data.labelled import read_labelled
from peftune.data.rows import Rows
from peftune.errors import UsageError
from peftune.files.paths import given_path
from peftune.forgetting.measure import ProbeText, read_probe_texts
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of
from peftune.models.reference import at_strength
from peftune.models.rescale import fit_head, refuse_frozen_trunk, with_head
from peftune.models.strength import Strength
from peftune.probes import Probe
from peftune.runs.forgetting import summarised
from peftune.runs.measured import Before, measure_tuned
from peftune.runs.report import Forgetting
from peftune.tasks.judge import judge
from peftune.tasks.learning import Learning, learned_something

Head = Literal["kept", "refitted"]


@dataclass(frozen=True, slots=True)
class Point:
    """A model at one strength.

    Args:
        strength: how far from the base.
        head: whether the classification head is the tuned model's or fitted to this strength.
        learning: the score on the labelled rows; None where there are none.
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
        name: name of the labelled file.
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
    refuse_frozen_trunk(opened.strategy)
    if manifest.task_name != "single-label" and (file is not None or head == "refitted"):
        message = f"Strengths are scored by accuracy, and heads refitted, for single-label tasks ('{opened.name}' is {manifest.task_name}). Leave the labelled rows out and keep the head."
        raise UsageError(message)
    _refuse_head_choice(head, file, fit_file)

    def rows_of(path: str | Path | None) -> Rows | None:
        if path is None:
            return None
        rows = read_labelled(
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
        message = "A refitted head needs labelled rows to fit on: fit_file=… in Python, --fit-file on the command line."
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
    forgetting = summarised(
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
