"""`peftune adapter diff`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftune.cli.console import JsonFlag, print_facts, print_json, print_rows, quiet_libraries, say
from peftune.cli.predict import ArtifactArgument, BaseOption

if TYPE_CHECKING:
    from peftune.adapters.difference import (
        ArtifactDifference,
        LogitsDifference,
        TensorDifference,
    )

_LONGEST = 60


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("diff")(diff)


def diff(
    a: ArtifactArgument,
    b: ArtifactArgument,
    file: Annotated[
        Path | None,
        typer.Option(help="Rows that both classify, each on its base; they need no labels."),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(help="Column that holds the text, if not the one that A learned from."),
    ] = None,
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Set two artifacts side by side: manifests, tensors, and what they make of the same texts."""
    quiet_libraries()
    from peftune.adapters.difference import diff as diff_artifacts

    found = diff_artifacts(a, b, file=file, text_column=text_column, base=base)
    if json:
        print_json(found.as_json())
        return
    print_facts("", [("A", found.a), ("B", found.b)])
    if found.identical:
        say("\nBoth are the same artifact: one digest, so the same files.")
    if found.fields:
        say()
        rows = [
            {"field": one.field, "A": _short(one.a), "B": _short(one.b)} for one in found.fields
        ]
        print_rows(rows, as_json=False)
    say()
    _print_tensors(found.tensors)
    say()
    print_facts("", _reference_logits(found))


def _print_tensors(found: TensorDifference) -> None:
    for names, side in ((found.only_in_a, "A"), (found.only_in_b, "B")):
        if names:
            say(f"only in {side}: {len(names)} tensors, {_short(names[0])} first")
    for name, (one, other) in list(found.other_shape.items())[:1]:
        say(
            f"of other shape: {len(found.other_shape)} tensors, {_short(name)} first: {list(one)} and {list(other)}"
        )
    rows = [
        {
            "tensors": one.group,
            "of both": one.tensors,
            "changed": one.changed,
            "largest difference": f"{one.largest:.3g}",
            "cosine": "-" if one.cosine is None else f"{one.cosine:.4f}",
        }
        for one in found.groups
    ]
    if rows:
        print_rows(rows, as_json=False)


def _reference_logits(found: ArtifactDifference) -> Iterator[tuple[str, str]]:
    if found.recorded is None:
        yield "reference logits", f"cannot be compared: {found.reason}"
    for precision, one in (found.recorded or {}).items():
        yield f"reference logits, {precision}", _said("texts", one)
    if found.rows is not None:
        yield "rows of the file", _said("rows", found.rows)


def _said(unit: str, found: LogitsDifference) -> str:
    parts = []
    if found.largest is not None:
        parts.append(f"logits differ by up to {found.largest:.3g}")
    if found.differ is not None:
        low, high = found.ci95 or (None, None)
        interval = "" if low is None else f" [{low:.2%}, {high:.2%}]"
        parts.append(f"labels differ on {found.differ:.2%}{interval}")
    return f"{found.n} {unit}: {'; '.join(parts)}"


def _short(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(one, float) for one in value):
        return f"[{', '.join(map(_short, value))}]"
    text = value if isinstance(value, str) else json_format.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
