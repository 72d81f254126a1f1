"""`peftune forget`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from peftune.cli.console import JsonFlag, print_facts, print_json, quiet_libraries

DEFAULT_PROBE = "bundled:general-text"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("forget")(forget)


def forget(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT_OR_MODEL",
            help="A folder: peftune's adapter or model, any PEFT LoRA adapter, or a plain GPT-2 checkpoint.",
        ),
    ],
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROBE",
            help="Text to measure on: bundled:general-text, a .txt or .jsonl file, or a hub id; behind a probe's type to measure something else, such as cloze:lambada.jsonl; or all its fields, such as '{type: cloze, file: lambada.jsonl, max_documents: 500}'. May be given several times.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base to compare with; needed for a plain checkpoint.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Measure what any adapter or checkpoint forgot, by any probe: bits per byte of general text, unless another is named."""
    quiet_libraries()
    from peftune.recipe import read_probe

    probes = [read_probe(text) for text in probe or [DEFAULT_PROBE]]
    from peftune.runs.forget import forget as forget_artifact

    result = forget_artifact(artifact, probes, base=base)
    if json:
        print_json(dataclasses.asdict(result))
        return
    for found in result:
        interval = f" [{found.ci95[0]:+.4f}, {found.ci95[1]:+.4f}]" if found.ci95 else ""
        print_facts(
            f"{artifact}, {found.type} on {found.name}",
            [
                ("before", f"{found.before:.4f} {found.unit}"),
                ("after", f"{found.after:.4f} {found.unit}"),
                (
                    "forgetting",
                    f"{found.forgetting:+.4f}{interval} {found.unit} (positive is worse)",
                ),
                ("documents", f"{found.n_documents} ({found.n_tokens} tokens)"),
            ],
        )
    control = result.controls["adapter_off_forgetting"]
    typer.echo(
        f"control, adapter off: {'not measured: a plain checkpoint has none' if control is None else repr(control)}"
    )
