"""`peftune adapter rescale`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import peftune
from peftune import api
from peftune.cli.console import print_facts, print_json, print_rows, quiet_libraries, say
from peftune.cli.options import ArtifactArgument, BaseOption, EmptyTextOption, JsonFlag
from peftune.errors import UsageError
from peftune.stats.formats import with_interval

if TYPE_CHECKING:
    from peftune.experiments.rescale import Head, Point

_GRID = "0,0.25,0.5,0.75,1"
_LEGEND = "Brackets: 95% intervals over rows or documents, of this one model; another seed makes another."


AlphaOption = Annotated[
    float | None,
    typer.Option(help="Strength to save: 0 is the base, 1 the tuned model; needs --output."),
]
OutputOption = Annotated[
    Path | None, typer.Option(help="Folder for the artifact at that strength.")
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        help="Labeled rows to score on. To choose a strength by them, take validation rows."
    ),
]
GridOption = Annotated[
    str | None,
    typer.Option(
        help=f"Strengths to measure, with commas between; {_GRID} if there is no --alpha."
    ),
]
LayerwiseOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHALLOW",
        help="Strength of the first block, from which it rises to alpha at the last.",
    ),
]
HeadOption = Annotated[
    str, typer.Option(help="The classification head: kept as tuned, or refitted.")
]
FitFileOption = Annotated[
    Path | None, typer.Option(help="Labeled rows to refit the head on: training rows.")
]
ProbeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Text to measure forgetting on, as for forget; bundled:general-text if there is a --file."
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(help="Draw accuracy against forgetting into a .png, .svg or .pdf file."),
]
TextColumnOption = Annotated[str, typer.Option(help="Column that holds the text.")]
LabelColumnOption = Annotated[
    str, typer.Option(help="Column that holds the label, as id or name.")
]


def rescale(
    artifact: ArtifactArgument,
    alpha: AlphaOption = None,
    output: OutputOption = None,
    file: FileOption = None,
    grid: GridOption = None,
    layerwise: LayerwiseOption = None,
    head: HeadOption = "kept",
    fit_file: FitFileOption = None,
    probe: ProbeOption = None,
    plot: PlotOption = None,
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    empty_text: EmptyTextOption = "error",
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure an artifact between its base and itself, and save it at the strength of your choice."""
    alphas = _alphas(grid, alpha, output, file, plot)
    quiet_libraries()
    from peftune.experiments.plots import check_plot_path, plot_points
    from peftune.experiments.rescale import sweep
    from peftune.recipe import read_probe

    if plot is not None:
        check_plot_path(plot)
    names = probe or ([api.GENERAL_TEXT] if file else [])
    shared: dict[str, Any] = {
        "shallow": layerwise,
        "head": cast("Head", head),
        "fit_file": fit_file,
        "probes": [read_probe(name) for name in names],
        "text_column": text_column,
        "label_column": label_column,
        "empty_text": empty_text,
        "base": base,
    }
    points: list[Point] = []
    if alphas and file is not None:
        points = sweep(artifact, file, alphas=alphas, **shared)
        if not json:
            print_rows([_row(point) for point in points], as_json=False)
            say(f"\n{_LEGEND}")
    if plot is not None:
        plot_points(points, plot, title=f"{artifact}, head {head}")
    if alpha is not None and output is not None:
        peftune.adapters.rescale(artifact, alpha=alpha, output=output, file=file, **shared)
    if json:
        saved = str(output) if output is not None else None
        print_json({"points": [dataclasses.asdict(point) for point in points], "saved": saved})
    elif output is not None:
        _print_saved(output)


def _alphas(
    grid: str | None,
    alpha: float | None,
    output: Path | None,
    file: Path | None,
    plot: Path | None,
) -> list[float]:
    """Read which strengths to measure; none where one is only to be saved."""
    if (alpha is None) != (output is None):
        given, missing = ("--output", "--alpha") if alpha is None else ("--alpha", "--output")
        message = f"{given} needs {missing}: together they save the artifact at a strength."
        raise UsageError(message)
    if alpha is not None and grid is None:
        if plot is not None:
            message = "--plot draws several strengths. Name them with --grid."
            raise UsageError(message)
        return []
    if file is None:
        message = "There is nothing to score on. Pass labeled rows with --file to measure strengths, or --alpha and --output to save one."
        raise UsageError(message)
    try:
        return [float(part) for part in (grid or _GRID).split(",")]
    except ValueError as error:
        message = f"--grid takes numbers with commas between, such as {_GRID} (got '{grid}')."
        raise UsageError(message) from error


def _row(point: Point) -> dict[str, str]:
    """Make a line of the table."""
    row = {"alpha": f"{point.strength.alpha:g}"}
    if point.strength.shallow is not None:
        row["first block"] = f"{point.strength.shallow:g}"
    if point.learning is not None:
        for name in ("accuracy", "macro_f1"):
            value = getattr(point.learning, name)
            row[name] = with_interval(value, point.learning.ci95[name], ".3f")
    for found in point.forgetting:
        row[f"forgetting on {found.name}, {found.unit}"] = with_interval(
            found.forgetting, found.ci95, "+.4f"
        )
        row[f"KL on {found.name}, nats/token"] = with_interval(found.kl, None, ".4f")
    return row


def _print_saved(folder: Path) -> None:
    from peftune.adapters.artifact import open_artifact

    manifest = open_artifact(folder).manifest
    facts = []
    if manifest.task is not None:
        facts += [
            (
                name,
                with_interval(manifest.task[name], manifest.task["ci95"][name], ".3f"),
            )
            for name in ("accuracy", "macro_f1")
        ]
    facts += [
        (
            f"forgetting on {found['name']}",
            f"{with_interval(found['forgetting'], found['ci95'], '+.4f')} {found['unit']} (positive is worse)",
        )
        for found in manifest.forgetting or []
    ]
    if facts:
        print_facts(str(folder), facts)
    say(f"saved: {folder}")
