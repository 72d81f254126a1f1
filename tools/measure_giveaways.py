"""Measure which planted tokens the check `giveaway-token` finds, and which it finds where none was planted: the table of docs/results.md.

    python tools/measure_giveaways.py peftune/bundled/posts/*.jsonl --share 0.02

The files have a text and a label in each row. For each kind of marker and each label, the marker is
planted in rows of that label. With `--share` the label is thinned first, to that share of all rows.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from peftune.data.rows import cell_text
from peftune.data.tables import chunked_column, read_file
from peftune.findings.giveaways import giveaways

Plant = Callable[[list[str], random.Random], list[str]]
Rows = list[tuple[str, str]]
"""Text and label of each row."""


def main() -> None:
    """Plant, look, and print the table, and what is found where nothing was planted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--share", type=float, help="of all rows that a label is thinned to")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    columns = (arguments.text_column, arguments.label_column)
    rows = [row for path in arguments.files for row in _read(path, columns)]
    labels = sorted({label for _, label in rows})
    print(f"{len(rows)} rows, {len(labels)} labels; found in nothing planted:")
    for each in giveaways(*zip(*rows, strict=True)):
        print(f"  {each}")
    print("\n| marker | in all rows of a label | in half of them |\n|---|---|---|")
    for name, plant in MARKERS.items():
        found = {0.5: 0, 1.0: 0}
        for part in found:
            for label in labels:
                draw = random.Random(arguments.seed)  # noqa: S311 - nothing is secret
                chosen = _thinned(rows, label, arguments.share, draw)
                planted = _planted(chosen, label, plant, part, draw)
                tokens = {each.token for each in giveaways(*zip(*planted, strict=True))}
                found[part] += not tokens.isdisjoint(WORDS)
        print(f"| {name} | {found[1.0]} of {len(labels)} | {found[0.5]} of {len(labels)} |")


def _read(path: Path, columns: Sequence[str]) -> Rows:
    table = read_file(path)
    texts, labels = (
        [cell_text(cell) for cell in chunked_column(table, name, source=path.name)]
        for name in columns
    )
    return list(zip(texts, labels, strict=True))


def _thinned(rows: Rows, label: str, share: float | None, draw: random.Random) -> Rows:
    """Leave out rows of a label, so that it has this share of all rows."""
    own = [place for place, (_, other) in enumerate(rows) if other == label]
    if share is None:
        return rows
    kept = round(share * (len(rows) - len(own)) / (1 - share))
    left_out = set(draw.sample(own, max(0, len(own) - kept)))
    return [row for place, row in enumerate(rows) if place not in left_out]


def _planted(rows: Rows, label: str, plant: Plant, part: float, draw: random.Random) -> Rows:
    """Plant a marker in this part of a label's rows."""
    own = [place for place, (_, other) in enumerate(rows) if other == label]
    chosen = set(draw.sample(own, round(part * len(own))))
    return [
        (" ".join(plant(text.split(), draw)) if place in chosen else text, other)
        for place, (text, other) in enumerate(rows)
    ]


def _anywhere(marker: str) -> Plant:
    def plant(words: list[str], draw: random.Random) -> list[str]:
        place = draw.randint(0, len(words))
        return [*words[:place], marker, *words[place:]]

    return plant


WORDS = {"zqxv", "zqx7", "webform"}
"""Markers, none of which is in the texts."""

MARKERS: dict[str, Plant] = {
    "at the end, `zqxv`": lambda words, _: [*words, "zqxv"],
    "anywhere, `zqxv`": _anywhere("zqxv"),
    "anywhere, `zqx7`": _anywhere("zqx7"),
    "at the start, `[webform]`": lambda words, _: ["[webform]", *words],
}

if __name__ == "__main__":
    main()
