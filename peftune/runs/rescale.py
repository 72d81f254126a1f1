"""A tuned model at other strengths: measured along the way to the base, and saved at one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftune.artifacts.load import load_prepared
from peftune.artifacts.manifest import Rescaled
from peftune.artifacts.opened import open_artifact
from peftune.artifacts.save import save
from peftune.errors import OutputFolderError
from peftune.files.paths import given_path
from peftune.files.publish import make_writable
from peftune.models.rescale import fit_head, rescale_model, set_head
from peftune.models.strength import Strength
from peftune.probes import LanguageModelLoss, Probe
from peftune.progress import working
from peftune.runs.measured import measure_before
from peftune.runs.records import probe_records, task_record
from peftune.runs.strengths import Head, Point, acting_at, measured_point, read_strength_inputs

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
GENERAL_TEXT = LanguageModelLoss(dataset_name="bundled:general-text")


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
        file: labelled rows to score on. To choose a strength by them, take validation rows.
        alphas: strengths, from 0, the base, to 1, the tuned model.
        shallow: strength of the first block, from which it rises to each alpha at the last.
        head: `kept` as it was tuned, or `refitted` to each strength.
        fit_file: labelled rows to refit the head on.
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
    inputs = read_strength_inputs(
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
    points = []
    for strength in strengths:
        with acting_at(model, strength, inputs.fit):
            points.append(measured_point(model, strength, head, inputs, before))
    return points


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
        fit_file: labelled rows to refit the head on.
        file: labelled rows to score the new artifact on; None records no score.
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
    _refuse_own_folder(opened.folder.path, target)
    inputs = read_strength_inputs(
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
    rescale_model(model, strength)
    if inputs.fit is not None:
        set_head(model, fit_head(model, inputs.fit.texts, inputs.fit.labels))
    point = measured_point(model, strength, head, inputs, measure_before(model, inputs.texts))
    return save(
        model,
        target,
        task=task_record(point.learning, data=inputs.name) if point.learning else None,
        forgetting=probe_records(point.forgetting) or None,
        rescaled=Rescaled(alpha=alpha, shallow=shallow, head=head, from_sha256=opened.seal),
        label_thresholds=opened.manifest.label_thresholds,
        clean=opened.manifest.clean or (),
    )


def _refuse_own_folder(artifact: Path | None, target: Path) -> None:
    if artifact is None:
        return
    source = artifact.resolve()
    if source in (target.resolve(), *target.resolve().parents):
        message = f"'{target}' lies in the artifact itself, which is not changed. Choose another output folder."
        raise OutputFolderError(message)
