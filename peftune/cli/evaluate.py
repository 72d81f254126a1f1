"""`peftune evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import peftune
from peftune.cli.console import print_facts, print_json, quiet_libraries
from peftune.cli.options import (
    ArtifactArgument,
    BaseOption,
    EmptyTextOption,
    JsonFlag,
    TextColumnOption,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate")(evaluate)


def evaluate(
    artifact: ArtifactArgument,
    file: Annotated[Path, typer.Option(help="Labeled rows: csv, tsv, json, jsonl or parquet.")],
    text_column: TextColumnOption = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column that holds the label, if not the one that was learned from."),
    ] = None,
    empty_text: EmptyTextOption = "error",
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Score an artifact on labeled rows."""
    quiet_libraries()
    learning = peftune.evaluate(
        artifact,
        file,
        text_column=text_column,
        label_column=label_column,
        empty_text=empty_text,
        base=base,
    )
    if json:
        print_json(learning.as_json())
        return
    facts = [("rows", str(learning.n))]
    values = {
        "accuracy": learning.accuracy,
        "macro_f1": learning.macro_f1,
        "loss": learning.loss,
        **learning.metrics,
    }
    for name, value in values.items():
        if value is None and name in ("accuracy", "macro_f1"):
            continue
        interval = learning.ci95.get(name)
        form = ".3f" if name in ("accuracy", "macro_f1") else ".4f"
        title = f"{name} of '{list(learning.per_label)[1]}'" if name == "binary_f1" else name
        shown = "-" if value is None else f"{value:{form}}"
        facts.append(
            (title, shown + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""))
        )
    print_facts(f"{artifact} on {file}", facts)
