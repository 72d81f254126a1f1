"""Assemble the verbs, and turn every fault into one line and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer
from typer.main import get_command

from peftune.cli import (
    compare,
    env,
    evaluate,
    forget,
    predict,
    probes,
    recipes,
    run,
    schema,
    strategies,
    validate,
)
from peftune.errors import PeftuneError

USAGE = 3
INTERRUPTED = 130
TERMINATED = 143

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
    predict,
    evaluate,
    forget,
    validate,
    strategies,
    probes,
    recipes,
    schema,
    env,
):
    verb.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 good, 1 failed, 2 a gate failed, 3 usage, 130 or 143 stopped."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_exit_code(list(sys.argv[1:] if arguments is None else arguments)))


def _exit_code(arguments: list[str]) -> int:
    try:
        result = get_command(app).main(args=arguments, prog_name="peftune", standalone_mode=False)
    except PeftuneError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain(
            "interrupted; what had finished is kept, and the same command goes on from there."
        )
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        # Typer's own faults of usage carry a message and an exit code; nothing else does.
        if not hasattr(error, "format_message"):
            if type(error).__name__ == "Abort":
                return INTERRUPTED
            raise
        _complain(f"{error.format_message()} See 'peftune --help'.")
        return USAGE
    return result if isinstance(result, int) else 0


def _complain(message: str) -> None:
    for line in message.splitlines():
        print(f"peftune: {line}", file=sys.stderr)  # noqa: T201 - the command line talks to people


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
    """Leave through the same doors as an interrupt, with the code of a terminated process."""
    raise SystemExit(TERMINATED)
