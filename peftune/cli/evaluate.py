"""`peftune evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from peftune.cli.console import JsonFlag, print_facts, print_json, quiet_libraries
from peftune.cli.predict import ArtifactArgument, BaseOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate")(evaluate)


def evaluate(
    artifact: ArtifactArgument,
    file: Annotated[Path, typer.Option(help="Labelled rows: csv, tsv, json, jsonl or parquet.")],
    text_column: Annotated[str, typer.Option(help="Column that holds the text.")] = "text",
    label_column: Annotated[
        str, typer.Option(help="Column that holds the label, as id or name.")
    ] = "label",
    empty_text: Annotated[
        str, typer.Option(help="What to do with rows without text: error, drop or keep.")
    ] = "error",
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Score an artifact on labelled rows."""
    quiet_libraries()
    from peftune.runs.evaluate import evaluate as evaluate_artifact

    learning = evaluate_artifact(
        artifact,
        file,
        text_column=text_column,
        label_column=label_column,
        empty_text=empty_text,
        base=base,
    )
    if json:
        print_json(dataclasses.asdict(learning))
        return
    facts = [("rows", str(learning.n))]
    for name in ("accuracy", "macro_f1"):
        low, high = learning.ci95[name] or (float("nan"), float("nan"))
        facts.append((name, f"{getattr(learning, name):.3f} [{low:.3f}, {high:.3f}]"))
    facts.append(("loss", f"{learning.loss:.4f}"))
    facts += [
        (name, "-" if value is None else f"{value:.4f}")
        for name, value in learning.metrics.items()
    ]
    print_facts(f"{artifact} on {file}", facts)
