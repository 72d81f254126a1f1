"""Where the numbers come from, and how to get them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from peftune.reporting.contents import Block, Cell, Code, Fold, Paragraph, Section, Table
from peftune.reporting.numbers import NOT_MEASURED
from peftune.reporting.subject import Subject, title_of
from peftune.runs.folder import RECIPE
from peftune.runs.report import Run


def origin_section(subject: Subject) -> Section:
    """Build the recipes of the runs, what they ran with, and their hashes."""
    if not subject.runs:
        return Section("origin", "Recipes and environment", [])
    blocks: list[Block] = [_identities(subject)]
    blocks += [
        Fold(f"Recipe of {title_of(run)}", [Code(recipe)])
        for run in subject.runs
        if (recipe := _recipe(run)) is not None
    ]
    blocks.append(Fold("Environment", [_environment(subject)]))
    return Section("origin", "Recipes and environment", blocks)


def _recipe(run: Run) -> str | None:
    path = run.folder / RECIPE
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _identities(subject: Subject) -> Table:
    return Table(
        caption="What was run",
        columns=["Run", "Base", "Base's hash", "Recipe's hash", "Rows' hash", "Batches' hash"],
        rows=[
            [
                Cell(title_of(run), series=subject.series(run.run.strategy)),
                Cell(run.run.base_model),
                *(
                    Cell(value[:12])
                    for value in (
                        run.run.base_fingerprint,
                        run.run.recipe_sha256,
                        run.run.data_fingerprint,
                        run.run.order_sha256 or NOT_MEASURED,
                    )
                ),
            ]
            for run in subject.runs
        ],
        align="llllll",
        cards=True,
        note="The first twelve digits of each SHA-256; report.json of each run has all of them. Runs whose batches have one hash read the same rows in the same order.",
    )


def _environment(subject: Subject) -> Table:
    """Say each value once where the runs agree, and by run where they do not."""
    facts = [dict(_flat(run.environment)) for run in subject.runs]
    rows = []
    for key in dict.fromkeys(key for known in facts for key in known):
        values = [known.get(key, NOT_MEASURED) for known in facts]
        if len(set(values)) == 1:
            text = values[0]
        else:
            named = zip(subject.runs, values, strict=True)
            text = "; ".join(f"{title_of(run)}: {value}" for run, value in named)
        rows.append([Cell(key), Cell(text)])
    return Table("Environment of the runs", ["What", "Value"], rows, "lt")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}, ")
        else:
            yield name, NOT_MEASURED if value is None else str(value)


def repeat_section(subject: Subject) -> Section:
    """Build the commands that make these runs and this page again."""
    if not subject.runs:
        return Section("repeat", "How to repeat", [])
    folders = [shlex.quote(run.folder.name or "RUN") for run in subject.runs]
    runs = "\n".join(
        f"peftune run {folder}/{RECIPE} --output again-{folder}" for folder in folders
    )
    return Section(
        "repeat",
        "How to repeat",
        [
            Paragraph(
                "Each run folder holds its recipe with every default filled in. From the folder that holds them, with the versions of the environment above:"
            ),
            Code(runs),
            Paragraph("This page is made from the run folders alone, without training:"),
            Code(f"peftune report {' '.join(folders)} --output report"),
        ],
    )
