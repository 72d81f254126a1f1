"""`peftune adapter verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from peftune.cli.console import JsonFlag, print_json, print_rows, quiet_libraries, say
from peftune.cli.predict import ArtifactArgument, BaseOption
from peftune.errors import VerificationError

if TYPE_CHECKING:
    from peftune.adapters.verification import Difference, On, Verification


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("verify")(verify)


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
    text_column: Annotated[
        str | None,
        typer.Option(help="Column that holds the text, if not the one that was learned from."),
    ] = None,
    base: BaseOption = None,
    json: JsonFlag = False,
) -> None:
    """Replay the texts on which an artifact's reference logits are recorded; 2 if one is beyond its tolerance."""
    quiet_libraries()
    from peftune.adapters.verification import verify as verify_artifact

    found = verify_artifact(
        artifact,
        base=base,
        on=cast("list[On]", [] if on is None else [part.strip() for part in on.split(",")]),
        file=file,
        text_column=text_column,
    )
    if json:
        print_json(found.as_json())
    else:
        _print(found)
    if not found.passed:
        raise VerificationError(
            "\n".join(
                f"'{found.artifact}' is off its record by {each.texts.largest:.3g} on {each.on}, and {each.allowed:.3g} is allowed."
                for each in found.replays
                if not each.passed
            )
        )


def _print(found: Verification) -> None:
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
