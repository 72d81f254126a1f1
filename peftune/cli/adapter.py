"""`peftune adapter …`: what can be done with a saved artifact."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import peftune
from peftune.cli.console import print_facts, print_json, print_rows, quiet_libraries, say
from peftune.cli.options import ArtifactArgument, BaseOption, JsonFlag, TextColumnOption
from peftune.cli.rescale import rescale
from peftune.errors import VerificationError

if TYPE_CHECKING:
    from peftune.adapters.difference import ArtifactDifference, LogitsDifference, TensorDifference
    from peftune.adapters.inspection import Contents
    from peftune.adapters.verification import Difference, On, Verification
    from peftune.models.weight_statistics import WeightChange


def register(app: typer.Typer) -> None:
    """Add the group with its verbs."""
    group = typer.Typer(no_args_is_help=True)
    for verb in (inspect, verify, merge, rescale, diff, push):
        group.command(verb.__name__)(verb)
    app.add_typer(group, name="adapter", help="Work on a saved artifact.")


_SHOWN = 10


def inspect(artifact: ArtifactArgument, base: BaseOption = None, json: JsonFlag = False) -> None:
    """Say what is inside an artifact: tensors, origin, scores, and how far each weight was moved."""
    quiet_libraries()
    found = peftune.adapters.inspect(artifact, base=base)
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
    print_rows([_change_row(one) for one in chosen], as_json=False)
    if found.outliers:
        say(
            "Outliers moved otherwise than the same weight of other blocks: information, no verdict."
        )


def _change_row(change: WeightChange) -> dict[str, str]:
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


def verify(
    artifact: ArtifactArgument,
    on: Annotated[
        str | None,
        typer.Option(
            help="What to replay on, with commas between: fp32, int8, merged; those that are recorded, if not given."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Rows on which the labels in one precision are set against those in another; they need no labels."
        ),
    ] = None,
    text_column: TextColumnOption = None,
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Replay the texts on which an artifact's reference logits are recorded; 2 if one is beyond its tolerance."""
    quiet_libraries()
    found = peftune.adapters.verify(
        artifact,
        base=base,
        on=cast("list[On]", [] if on is None else [part.strip() for part in on.split(",")]),
        file=file,
        text_column=text_column,
    )
    if json:
        print_json(found.as_json())
    else:
        _print_replays(found)
    if not found.passed:
        raise VerificationError(
            "\n".join(
                f"'{found.artifact}' is off its record by {each.texts.largest:.3g} on {each.on}, and {each.allowed:.3g} is allowed."
                for each in found.replays
                if not each.passed
            )
        )


def _print_replays(found: Verification) -> None:
    texts, rows = f"{found.n_texts} texts", f"{found.n_rows} rows"
    lines = []
    for each in found.replays:
        line = {
            "on": each.on,
            f"off the record, {texts}": f"{each.texts.largest:.2e}",
            "allowed": f"{each.allowed:.2e}",
            f"label flips, {texts}": _share(each.texts),
        }
        if found.n_rows is not None:
            line |= {
                f"off {found.trained_on}, {rows}": _largest(each.rows),
                f"label flips, {rows}": _share(each.rows),
            }
        lines.append(line | {"": "reproduced" if each.passed else "NOT REPRODUCED"})
    print_rows(lines, as_json=False)
    if found.parity is not None:
        parts = [f"{_largest(found.parity.texts)} over {texts}"]
        if found.parity.rows is not None:
            parts.append(f"{_largest(found.parity.rows)} over {rows}")
        flips = [f"{_share(found.parity.texts)} of {texts}"]
        if found.parity.rows is not None:
            flips.append(f"{_share(found.parity.rows)} of {rows}")
        say(
            f"\nTrained on int8. On fp32 logits differ by up to {', '.join(parts)}; labels by {', '.join(flips)}."
        )


def _largest(difference: Difference | None) -> str:
    return "-" if difference is None else f"{difference.largest:.2e}"


def _share(difference: Difference | None) -> str:
    if difference is None or difference.label_flips is None:
        return "-"
    return f"{difference.label_flips:.2%}"


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
    merged = peftune.adapters.merge(artifact, output, base=base, dtype=dtype, lm=lm)
    if json:
        print_json(merged.as_json())
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


_LONGEST = 60


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
    found = peftune.adapters.diff(a, b, file=file, text_column=text_column, base=base)
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
        yield f"reference logits, {precision}", _describe("texts", one)
    if found.rows is not None:
        yield "rows of the file", _describe("rows", found.rows)


def _describe(unit: str, found: LogitsDifference) -> str:
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


_MESSAGE = "Share an artifact of peftune"


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

    pushed = peftune.adapters.push(
        artifact, repository, private=private, message=message, base=base
    )
    identity = open_artifact(artifact).manifest.base
    line = load_line(pushed, base=identity.name, revision=identity.revision)
    if json:
        print_json({"artifact": pushed, "load": line})
        return
    say(f"pushed: {pushed}")
    say(f"load:   {line}")
