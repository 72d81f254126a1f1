"""Assemble the verbs, and turn every fault into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer import Abort
from typer.main import get_command

from peftune._version import __version__
from peftune.cli import (
    adapter,
    check,
    compare,
    evaluate,
    fewshot,
    forget,
    listings,
    plan,
    predict,
    report,
    run,
    tune,
    validate,
)
from peftune.cli.console import give_up_output, print_every_character
from peftune.cli.signals import INTERRUPTED, MESSAGES, STOPS, complain
from peftune.errors import PeftuneError, printable

FAILED = 1
USAGE = 3

app = typer.Typer(
    name="peftune",
    help="Fine-tune GPT-2 for classification with any strategy, and see what it learned and what it forgot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    run,
    compare,
    tune,
    fewshot,
    predict,
    evaluate,
    forget,
    report,
    adapter,
    check,
    plan,
    validate,
    listings,
):
    verb.register(app)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"peftune {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@app.callback()
def _every_verb(version: VersionOption = False) -> None:
    """Take the options that stand before a verb."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 good, 1 failed, 2 a gate failed, 3 usage; 130, 143 or 129 stopped."""
    STOPS.listen()
    print_every_character()
    code = _exit_code(list(sys.argv[1:] if arguments is None else arguments))
    STOPS.end(code)
    sys.exit(code)


def _exit_code(arguments: list[str]) -> int:
    try:
        result = get_command(app).main(args=arguments, prog_name="peftune", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        give_up_output()
        return FAILED
    except BaseException as error:
        ending = _ending(error)
        if ending is None:
            raise
        code, message = ending
    else:
        code = result if isinstance(result, int) else 0
        # Newer versions of Typer turn an interrupt into this code themselves.
        message = MESSAGES[code] if code == INTERRUPTED else ""
    complain(message)
    return code


def _ending(error: BaseException) -> tuple[int, str] | None:
    """Say how a fault ends the process; None for a fault of our own, which keeps its traceback."""
    if STOPS.code is not None:  # whatever a library made of it
        return STOPS.code, MESSAGES[STOPS.code]
    if isinstance(error, PeftuneError):
        return error.exit_code, str(error)
    if isinstance(error, (KeyboardInterrupt, Abort)):
        return INTERRUPTED, MESSAGES[INTERRUPTED]
    if isinstance(error, OSError):
        return FAILED, printable(f"{error.filename or 'the system'}: {error.strerror or error}.")
    # Typer's own faults of usage carry a message; nothing else does. Without arguments it is
    # empty, for the help was printed.
    if hasattr(error, "format_message"):
        message = printable(error.format_message().strip())
        stop = "" if message.endswith((".", "?")) else "."
        return USAGE, f"{message}{stop} See 'peftune --help'." if message else ""
    return None
