"""`peftune adapter merge`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from peftune.cli.console import JsonFlag, print_facts, print_json, quiet_libraries, say
from peftune.cli.predict import ArtifactArgument, BaseOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("merge")(merge)


def merge(
    artifact: ArtifactArgument,
    output: Annotated[Path, typer.Argument(help="Folder for the checkpoint: empty, or new.")],
    dtype: Annotated[
        str, typer.Option(help="Type of the checkpoint's weights: float32 or bfloat16.")
    ] = "float32",
    lm: Annotated[
        bool,
        typer.Option(
            "--lm",
            help="Write the tuned backbone with its language-model head, not the classifier.",
        ),
    ] = False,
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Merge an artifact into its base: a plain transformers checkpoint, checked against the artifact."""
    quiet_libraries()
    from peftune.adapters.merged_checkpoint import merge as merge_artifact

    merged = merge_artifact(artifact, output, base=base, dtype=dtype, lm=lm)
    if json:
        print_json({**dataclasses.asdict(merged), "folder": str(merged.folder)})
        return
    unit = "log-probabilities of tokens, nats" if merged.lm else "logits"
    facts = [
        (f"off the artifact in float32, {unit}", f"{merged.difference.largest:.2e}"),
        ("allowed", f"{merged.allowed:.2e}"),
    ]
    if merged.difference.label_flips is not None:
        facts.append(("label flips", f"{merged.difference.label_flips:.2%}"))
    print_facts(f"merged in {merged.dtype}", facts)
    say(f"saved: {merged.folder}")
