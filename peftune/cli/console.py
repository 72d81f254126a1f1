"""What the verbs share: output for people or programs, and quiet libraries."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftune.alarms import ignore_alarming_warnings
from peftune.progress import speak

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 120

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def console() -> Console:
    """Return a console; without a terminal it is wide enough that no cell is cut."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_WIDTH_WITHOUT_TERMINAL, highlight=False, color_system=None)


def print_json(values: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Print values as JSON."""
    sys.stdout.write(json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows of the same keys, as JSON or as a table with the keys as headings."""
    if as_json:
        print_json(list(rows))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(rows[0] if rows else ()):
        table.add_column(heading, no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    console().print(table)


def print_facts(title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print name and value, a line each."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False, title=title, title_justify="left")
    for name, value in facts:
        table.add_row(name, Text(value))
    console().print(table)


def quiet_libraries() -> None:
    """Let through what peftune has to say, and of the libraries only warnings that concern a user."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    speak()
    import datasets
    import transformers

    # Bars of file operations that take milliseconds; peftune shows bars of its own.
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # The hub client tells of every retry; the error that ends them tells enough.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # bitsandbytes tells at import that an optional kernel package is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    ignore_alarming_warnings()
