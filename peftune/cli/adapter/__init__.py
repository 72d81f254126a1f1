"""`peftune adapter …`: what can be done with a saved artifact, one module a verb."""

from __future__ import annotations

import typer

from peftune.cli.adapter import merge, push, rescale, verify


def register(app: typer.Typer) -> None:
    """Add the group with its verbs."""
    group = typer.Typer(no_args_is_help=True)
    for verb in (verify, merge, rescale, push):
        verb.register(group)
    app.add_typer(group, name="adapter", help="Work on a saved artifact.")
