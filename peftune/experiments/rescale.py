"""A tuned model at other strengths: measured along the way to the base, and saved at one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftune.adapters.artifact import open_artifact
from peftune.adapters.loading import load_prepared
from peftune.adapters.manifest import Rescaled
from peftune.adapters.saving import save
from peftune.errors import OutputFolderError, UsageError, visible_lines
from peftune.experiments.run_evidence import probe_records, task_record
from peftune.experiments.strength_sweep import (
    Head,
    Point,
    acting_at,
    measured_point,
    read_strength_inputs,
)
from peftune.files.publishing import make_writable, replaced
from peftune.files.reading import given_path
from peftune.forgetting.before_and_after import measure_before
from peftune.models.inference import fit_head, set_head
from peftune.models.interpolation import Strength, rescale_model
from peftune.models.prepare import preparation_of
from peftune.probes import LanguageModelLoss, Probe
from peftune.progress import working

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    rescale_model(model, preparation_of(model).before, strength)
    if inputs.fit is not None:
        set_head(model, fit_head(model, inputs.fit.texts, inputs.fit.labels))
    point = measured_point(model, strength, head, inputs, measure_before(model, inputs.texts))
    return save(
        model,
        target,
        task=task_record(point.learning, data=inputs.name) if point.learning else None,
        forgetting=probe_records(point.forgetting) or None,
        rescaled=Rescaled(alpha=alpha, shallow=shallow, head=head, from_sha256=opened.digest),
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


KINDS = (".pdf", ".png", ".svg")

_INTERVAL = "0.7"
"""Grey of the intervals, lighter than the points."""


def check_plot_path(path: Path) -> None:
    """Refuse a file that could not be written, before anything is measured.

    Raises:
        UsageError: its kind is unknown, or its folder is missing.
    """
    if path.suffix.lower() not in KINDS:
        message = f"'{path}' is of no known kind of picture. Allowed: {', '.join(KINDS)}."
        raise UsageError(message)
    if not path.parent.is_dir():
        message = f"There is no folder '{path.parent}' to write '{path.name}' into."
        raise UsageError(message)


def write_as_text(figure: Figure) -> None:
    """Let every name in a figure be text: no formula between dollar signs, and nothing unseen."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            text.set_text(visible_lines(text.get_text()))


def plot_points(points: Sequence[Point], path: Path, *, title: str) -> None:
    """Write a picture with a panel for each probe.

    Each point is a strength, labeled with its alpha; lines across it are 95% intervals.

    Args:
        points: from `sweep`, with labeled rows and at least one probe.
        path: a .pdf, .png or .svg file.
        title: what was rescaled.

    Raises:
        UsageError: the file cannot be written, or there is nothing to draw.
    """
    check_plot_path(path)
    names = [result.name for result in points[0].forgetting] if points else []
    if not names or points[0].learning is None:
        message = "A plot of accuracy against forgetting needs labeled rows and a probe."
        raise UsageError(message)
    figure = _figure(len(names))
    figure.suptitle(title)
    for name, axes in zip(names, figure.axes, strict=True):
        _draw(axes, points, name)
    write_as_text(figure)
    with replaced(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=150)


def _figure(panels: int) -> Figure:
    from matplotlib.figure import Figure

    # Without pyplot there is no window and no state that outlives the picture.
    figure = Figure(figsize=(6.4 * panels, 4.8), layout="constrained")
    figure.subplots(1, panels)
    return figure


def _draw(axes: Axes, points: Sequence[Point], name: str) -> None:
    scores = [point.learning for point in points if point.learning is not None]
    found = [point.forgetting[name] for point in points]
    accuracies = [score.accuracy or 0.0 for score in scores]
    forgettings = [result.forgetting for result in found]
    axes.axhline(0, color="0.85", linewidth=1, zorder=0)
    for point, score, result, accuracy in zip(points, scores, found, accuracies, strict=True):
        if (across := score.ci95["accuracy"]) is not None:
            axes.hlines(result.forgetting, *across, color=_INTERVAL, linewidth=1, zorder=1)
        if (along := result.ci95) is not None:
            axes.vlines(accuracy, *along, color=_INTERVAL, linewidth=1, zorder=1)
        axes.annotate(
            f"{point.strength.alpha:g}",
            (accuracy, result.forgetting),
            xytext=(6, 6),
            textcoords="offset points",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    axes.plot(accuracies, forgettings, marker="o", zorder=2)
    axes.set_xlabel(f"accuracy on {scores[0].split} (share of {scores[0].n} rows)")
    axes.set_ylabel(f"forgetting on {name} ({found[0].unit}, positive is worse)")
    axes.set_title(
        "each point is a strength, labeled with its alpha; grey: 95% intervals over rows or documents, of this one model",
        fontsize="small",
    )
