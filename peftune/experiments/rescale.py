"""An artifact at other strengths between base and tuned model: measure them, or save one of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torch import nn

from peftune.adapters.artifact import Opened, open_artifact, refuse_inside
from peftune.adapters.classifier import cleaned_for
from peftune.adapters.loading import load_prepared
from peftune.adapters.manifest import Rescaled
from peftune.adapters.saving import save
from peftune.data.rows import Rows
from peftune.data.task_data import read_labeled
from peftune.errors import UsageError
from peftune.experiments.path import at_each, prepared_logits
from peftune.experiments.report import Forgetting, summarized
from peftune.experiments.run_evidence import probe_records, task_record
from peftune.files.publishing import make_writable
from peftune.files.reading import given_path
from peftune.forgetting.before_and_after import Before, measure_before, measure_tuned
from peftune.forgetting.measurement import ProbeText, read_probe_texts
from peftune.models.inference import fit_head, set_head
from peftune.models.interpolation import Strength, rescale_model
from peftune.models.prepare import preparation_of
from peftune.probes import LanguageModelLoss, Probe
from peftune.progress import working
from peftune.tasks import methods_of
from peftune.tasks.scores import Learning, learned_something

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
GENERAL_TEXT = LanguageModelLoss(dataset_name="bundled:general-text")


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
class _Inputs:
    """Rows and probe texts of a measurement.

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


def _read_inputs(
    opened: Opened,
    *,
    head: Head,
    file: str | Path | None,
    fit_file: str | Path | None,
    probes: Sequence[Probe],
    columns: tuple[str, str],
    empty_text: str,
) -> _Inputs:
    """Read and check the rows and texts, before a model is loaded."""
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
    return _Inputs(name, rows_of(file), rows_of(fit_file), read_probe_texts(probes))


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


def _measured(
    model: nn.Module, strength: Strength, head: Head, inputs: _Inputs, before: Before
) -> Point:
    """Measure a prepared model that is at a strength, with a head; `before` is its base."""
    learning = None
    if inputs.rows is not None:
        # The training rows are not at hand; no constant answer scores higher on these than this one.
        commonest = Counter(inputs.rows.labels).most_common(1)[0][1]
        learning = methods_of(preparation_of(model).task).score(
            prepared_logits(model, inputs.rows.texts),
            inputs.rows.labels,
            names=preparation_of(model).labels,
            split=inputs.name,
            baselines={"majority": {"accuracy": commonest / len(inputs.rows)}},
        )
    forgetting = summarized(
        inputs.texts,
        measure_tuned(model, inputs.texts, before),
        learned=None if learning is None else learned_something(learning),
        without="no probes were given",
    )
    return Point(strength, head, learning, forgetting)


@working("measuring strengths")
def sweep(
    artifact: str | Path,
    file: str | Path,
    *,
    alphas: Sequence[float] = GRID,
    shallow: float | None = None,
    head: Head = "kept",
    fit_file: str | Path | None = None,
    probes: Sequence[Probe] = (GENERAL_TEXT,),
    text_column: str = "text",
    label_column: str = "label",
    empty_text: str = "error",
    base: str | None = None,
    use_cpu: bool = False,
) -> list[Point]:
    """Measure an artifact at several strengths; nothing is written.

    Args:
        artifact: an adapter or model folder.
        file: labeled rows to score on. To choose a strength by them, take validation rows.
        alphas: strengths, from 0, the base, to 1, the tuned model.
        shallow: strength of the first block, from which it rises to each alpha at the last.
        head: `kept` as it was tuned, or `refitted` to each strength.
        fit_file: labeled rows to refit the head on.
        probes: what else to measure.
        text_column: column of both files that holds the text.
        label_column: column of both files that holds the label.
        empty_text: `error`, `drop` or `keep`: what to do with rows without text.
        base: where the base lies, if not under the name in the manifest.
        use_cpu: stay on the CPU even where there is a GPU.

    Returns:
        A point for each alpha, in their order.

    Raises:
        ArtifactError: the artifact is refused.
        DataError: rows or probe texts cannot be used.
        UsageError: a strength or the choice of the head makes no sense.
    """
    strengths = [Strength(alpha, shallow) for alpha in alphas]
    opened = open_artifact(artifact)
    inputs = _read_inputs(
        opened,
        head=head,
        file=file,
        fit_file=fit_file,
        probes=probes,
        columns=(text_column, label_column),
        empty_text=empty_text,
    )
    model = load_prepared(opened, base=base, use_cpu=use_cpu)
    before = measure_before(model, inputs.texts)
    return [
        _measured(model, strength, head, inputs, before)
        for strength in at_each(model, strengths, fit=inputs.fit)
    ]


@working("rescaling")
def rescale(
    artifact: str | Path,
    *,
    alpha: float,
    output: str | Path,
    shallow: float | None = None,
    head: Head = "kept",
    fit_file: str | Path | None = None,
    file: str | Path | None = None,
    probes: Sequence[Probe] = (),
    text_column: str = "text",
    label_column: str = "label",
    empty_text: str = "error",
    base: str | None = None,
    use_cpu: bool = False,
) -> Path:
    """Save an artifact at another strength, as a normal artifact; the original is not touched.

    The new manifest and card say what was measured on the way, and that it was rescaled out of
    which artifact; the old numbers are not carried over.

    Args:
        artifact: an adapter or model folder.
        alpha: strength, from 0, the base, to 1, the tuned model.
        output: the new folder; an older artifact there is replaced, anything else is refused.
        shallow: strength of the first block, from which it rises to alpha at the last.
        head: `kept` as it was tuned, or `refitted` to the strength.
        fit_file: labeled rows to refit the head on.
        file: labeled rows to score the new artifact on; None records no score.
        probes: what else to measure of it.
        text_column: column of both files that holds the text.
        label_column: column of both files that holds the label.
        empty_text: `error`, `drop` or `keep`: what to do with rows without text.
        base: where the base lies, if not under the name in the manifest.
        use_cpu: stay on the CPU even where there is a GPU.

    Returns:
        The new folder.

    Raises:
        ArtifactError: the artifact is refused.
        DataError: rows or probe texts cannot be used.
        OutputFolderError: the output folder holds something else, or is the artifact itself.
        UsageError: the strength or the choice of the head makes no sense.
    """
    strength = Strength(alpha, shallow)
    opened, target = open_artifact(artifact), given_path(output, "output")
    refuse_inside(opened, target)
    inputs = _read_inputs(
        opened,
        head=head,
        file=file,
        fit_file=fit_file,
        probes=probes,
        columns=(text_column, label_column),
        empty_text=empty_text,
    )
    model = load_prepared(opened, base=base, use_cpu=use_cpu)
    make_writable(target.parent)  # not before the artifact has been checked
    rescale_model(model, preparation_of(model).before, strength)
    if inputs.fit is not None:
        set_head(model, fit_head(model, inputs.fit.texts, inputs.fit.labels))
    point = _measured(model, strength, head, inputs, measure_before(model, inputs.texts))
    return save(
        model,
        target,
        task=task_record(point.learning, data=inputs.name) if point.learning else None,
        forgetting=probe_records(point.forgetting) or None,
        rescaled=Rescaled(alpha=alpha, shallow=shallow, head=head, from_sha256=opened.digest),
        label_thresholds=opened.manifest.label_thresholds,
        clean=opened.manifest.clean or (),
    )
