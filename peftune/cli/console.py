"""Output of every verb, for people or programs, and quiet libraries."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from peftune.display import json_text
from peftune.errors import visible, visible_lines
from peftune.progress import ignore_alarming_warnings, speak

if TYPE_CHECKING:
    from rich.console import Console

    from peftune.findings import CheckReport

_WIDTH_WITHOUT_TERMINAL = 120


def console() -> Console:
    """Return a console; without a terminal it is wide enough that no cell is cut."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_WIDTH_WITHOUT_TERMINAL, highlight=False, color_system=None)


def say(text: str = "") -> None:
    """Print lines for people; what others wrote in them does nothing to a terminal."""
    typer.echo(visible_lines(text))


def say_wrapped(text: str) -> None:
    """Print lines for people, broken between words where the terminal ends."""
    from rich.text import Text

    console().print(Text(visible_lines(text)))


def print_json(values: Any) -> None:  # noqa: ANN401 - anything JSON holds
    """Print values as JSON."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(json_text(values, encoding=encoding, indent=1) + "\n")


def print_every_character() -> None:
    """Let standard output take every text: what its encoding lacks is printed as `?`.

    Python's own setting is a traceback. A console that is closed takes everything, too.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lasts as long as the process
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    encoding = codecs.lookup(sys.stdout.encoding).name
    if encoding != "utf-8" or sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def give_up_output() -> None:
    """Send what is still to be printed nowhere: whoever read it has gone away."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows of the same keys, as JSON or as a table with the keys as headings."""
    if as_json:
        print_json(list(rows))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(rows[0] if rows else ()):
        table.add_column(Text(visible(heading)), no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(visible(str(value))) for value in row.values()))
    console().print(table)


def print_facts(title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print name and value, a line each."""
    from rich.table import Table
    from rich.text import Text

    heading = Text(visible(title), style="table.title")
    table = Table(show_header=False, box=None, pad_edge=False, title=heading, title_justify="left")
    for name, value in facts:
        table.add_row(Text(visible(name)), Text(visible(value)))
    console().print(table)


def print_checks(checks: CheckReport) -> None:
    """Print what the checks of the data warn of; a failed one stops the run before this."""
    for result in checks.with_status("warn"):
        say(f"\nwarning, {result.code}: {result.message} {result.advice}".rstrip())
    print_cleaning(checks)


def print_cleaning(checks: CheckReport) -> None:
    """Print what each step of `data.clean` did, so that no row leaves in silence."""
    from peftune.data.cleaning import LEAVES_OUT
    from peftune.data.rows import counted

    if checks.cleaned:
        say("")
    for count in checks.cleaned:
        left_out = count.step in LEAVES_OUT
        rows = counted(count.dropped if left_out else count.changed, "row")
        say(f"cleaned {count.split}: {count.step} {'left out' if left_out else 'changed'} {rows}")


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
