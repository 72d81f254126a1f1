"""`peftune adapter inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from peftune.cli.console import JsonFlag, print_facts, print_json, print_rows, quiet_libraries, say
from peftune.cli.predict import ArtifactArgument, BaseOption

if TYPE_CHECKING:
    from peftune.adapters.inspection import Contents
    from peftune.models.weight_statistics import WeightChange

_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("inspect")(inspect)


def inspect(artifact: ArtifactArgument, base: BaseOption = None, json: JsonFlag = False) -> None:
    """Say what is inside an artifact: tensors, origin, scores, and how far each weight was moved."""
    quiet_libraries()
    from peftune.adapters.inspection import inspect as inspect_artifact

    found = inspect_artifact(artifact, base=base)
    if json:
        print_json(found.as_json())
        return
    print_facts(found.artifact, _facts(found))
    say()
    print_rows(
        [
            {
                "tensors": one.group,
                "number": one.tensors,
                "parameters": f"{one.parameters:,}",
                "bytes": f"{one.nbytes:,}",
            }
            for one in found.by_group
        ],
        as_json=False,
    )
    say()
    _print_changes(found)


def _facts(found: Contents) -> Iterator[tuple[str, str]]:
    yield "kind", found.kind
    if found.sha256 is None:
        yield (
            "manifest",
            "none: nothing says which base, labels and reference logits it belongs to",
        )
    else:
        yield "sha256", found.sha256
    yield (
        "files",
        f"{found.nbytes:,} bytes: {', '.join(f'{name} {size:,}' for name, size in found.files.items())}",
    )
    yield "strategy", _listed(found.strategy)
    yield "base", _listed({key: value for key, value in found.base.items() if value is not None})
    yield "numbers", ", ".join(f"{count:,} of {dtype}" for dtype, count in found.dtypes.items())
    if found.precision is not None:
        yield "base held in", found.precision
    if found.labels is not None:
        yield "task", f"{found.task_name}: {', '.join(found.labels)}".rstrip(": ")
        yield "longest text", f"{found.max_length} tokens"
    if found.clean:
        yield "texts are cleaned by", ", ".join(found.clean)
    yield from _measured(found)
    if found.provenance is not None:
        origin = found.provenance
        yield "saved by", f"peftune {origin.peftune_version}"
        for name in ("started_from", "rescaled", "trained_on"):
            values = getattr(origin, name) or {}
            # Hashes by which rows are known again tell a reader nothing.
            shown = {key: value for key, value in values.items() if key != "sketches"}
            if shown:
                yield name.replace("_", " "), _listed(shown)


def _measured(found: Contents) -> Iterator[tuple[str, str]]:
    scores = found.scores or {}
    for name in ("accuracy", "macro_f1", "loss"):
        if isinstance(scores.get(name), float):
            yield name, f"{scores[name]:.3f} ({scores.get('n')} rows of {scores.get('data')})"
    for probe in found.forgetting:
        value = probe.get("forgetting")
        if isinstance(value, float):
            yield (
                f"forgetting on {probe.get('name')}",
                f"{value:+.4f} {probe.get('unit')} (positive is worse)",
            )


def _print_changes(found: Contents) -> None:
    if found.changes is None:
        say(f"How far weights were moved is not known: {found.reason}")
        return
    if not found.changes:
        say("The backbone is the base's.")
        return
    say(f"{len(found.changes)} weights of the backbone differ from the base's.")
    moved = sorted(found.changes, key=lambda one: -(one.relative or 0.0))
    chosen = [*found.outliers, *(one for one in moved if not one.outlier)][:_SHOWN]
    print_rows([_row(one) for one in chosen], as_json=False)
    if found.outliers:
        say(
            "Outliers moved otherwise than the same weight of other blocks: information, no verdict."
        )


def _row(change: WeightChange) -> dict[str, str]:
    relative = "-" if change.relative is None else f"{change.relative:.4f}"
    return {
        "weight": change.weight,
        "change": f"{change.norm:.4g}",
        "change / base": relative,
        "": "outlier" if change.outlier else "",
    }


def _listed(values: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(values, dict):
        return ", ".join(f"{key} {_listed(value)}" for key, value in values.items())
    if isinstance(values, (list, tuple)):
        return "[" + ", ".join(map(_listed, values)) + "]"
    return str(values)
