"""`peftune predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from peftune.cli.console import quiet_libraries
from peftune.errors import UsageError
from peftune.progress import working

ArtifactArgument = Annotated[
    str,
    typer.Argument(help="The adapter/ or model/ folder of a run, or user/name@commit on the hub."),
]
BaseOption = Annotated[
    str | None, typer.Option(help="Where the base lies, if not under the name in the manifest.")
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("predict")(predict)


@working("predicting")
def predict(
    artifact: ArtifactArgument,
    text: Annotated[
        list[str] | None, typer.Option(help="A text; may be given several times.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="A file of texts: .txt (one a line), csv, tsv, json, jsonl or parquet."),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(help="Column that holds the text, if not the one that was learned from."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
    base: BaseOption = None,
) -> None:
    """Classify texts: one JSON line each, in order, with text, label, score and probabilities.

    Multi-label says `labels` too; the score of a regression is its number.
    """
    if (not text) == (file is None):
        message = "predict needs texts: either --text (once or more) or --file."
        raise UsageError(message)
    if output is not None and not output.parent.is_dir():
        message = f"There is no folder '{output.parent}' to write '{output.name}' into."
        raise UsageError(message)
    quiet_libraries()
    from peftune.artifacts import load
    from peftune.artifacts.columns import columns_of
    from peftune.data.texts import read_texts
    from peftune.runs.seen import seen_by

    classifier = load(artifact, base=base)
    columns = columns_of(classifier.manifest, text_column=text_column)
    texts = list(text) if text else read_texts(file, columns) if file else []
    if file is not None and classifier.manifest is not None:
        seen_by(
            classifier.manifest,
            texts,
            what=f"texts of '{file.name}'",
            consequence="their labels do not show what it makes of other texts",
        )
    predictions = classifier.predict(texts)
    lines = [
        json.dumps({"text": given, **found.as_json()}, ensure_ascii=False)
        for given, found in zip(texts, predictions, strict=True)
    ]
    content = "\n".join(lines) + "\n"
    if output is None:
        sys.stdout.write(content)
    else:
        output.write_text(content, encoding="utf-8")
