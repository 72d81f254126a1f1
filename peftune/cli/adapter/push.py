"""`peftune adapter push`."""

from __future__ import annotations

from typing import Annotated

import typer

from peftune.cli.console import JsonFlag, print_json, quiet_libraries, say
from peftune.cli.predict import ArtifactArgument, BaseOption

_MESSAGE = "Share an artifact of peftune"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("push")(push)


def push(
    artifact: ArtifactArgument,
    repository: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Repository on the hub; made if need be.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = _MESSAGE,
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Share an artifact on the hub: checked, then pushed as one commit of exactly its files."""
    quiet_libraries()
    from peftune.adapters.artifact import open_artifact
    from peftune.adapters.card import load_line
    from peftune.adapters.hub.push import push as push_artifact

    pushed = push_artifact(artifact, repository, private=private, message=message, base=base)
    identity = open_artifact(artifact).manifest.base
    line = load_line(pushed, base=identity.name, revision=identity.revision)
    if json:
        print_json({"artifact": pushed, "load": line})
        return
    say(f"pushed: {pushed}")
    say(f"load:   {line}")
