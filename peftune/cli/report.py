"""`peftune report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import peftune
from peftune.cli.console import print_json, quiet_libraries, say
from peftune.cli.options import JsonFlag


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report")(report)


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Run folders, or the folder of a comparison.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the report; otherwise into DIR, if there is only one."),
    ] = None,
    row_texts: Annotated[
        bool,
        typer.Option(help="Show the texts of the scored rows, or leave them out."),
    ] = True,
    json: JsonFlag = False,
) -> None:
    """Make report.html, report.md and report.csv again from run folders alone."""
    quiet_libraries()
    made = peftune.report(*folders, output=output, row_texts=row_texts)
    if json:
        print_json(made.as_json())
        return
    say(made.answer)
    say(f"Report: {made.page}")
