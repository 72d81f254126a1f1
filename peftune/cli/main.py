"""Assemble the verbs, and turn every fault into one line and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer
from typer import Abort
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

FAILED = 1
USAGE = 3
INTERRUPTED = 130
TERMINATED = 143

_KEPT = "what had finished is kept, and the same command goes on from there."

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


def _exit_code(arguments: list[str]) -> int:  # noqa: C901, PLR0911 - one branch a way to end
    try:
        result = get_command(app).main(args=arguments, prog_name="peftune", standalone_mode=False)
    except PeftuneError as error:
        _complain(str(error))
        return error.exit_code
    except (KeyboardInterrupt, Abort):
        _complain(f"interrupted; {_KEPT}")
        return INTERRUPTED
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        _complain(f"terminated; {_KEPT}")
        return TERMINATED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except OSError as error:
        _complain(f"{error.filename or 'the system'}: {error.strerror or error}.")
        return FAILED
    except Exception as error:
        # Typer's own faults of usage carry a message and an exit code; nothing else does.
        if not hasattr(error, "format_message"):
            raise
        # Without arguments the help was printed, and there is nothing more to say.
        if message := error.format_message().strip():
            _complain(f"{message}{'' if message[-1] in '.?' else '.'} See 'peftune --help'.")
        return USAGE
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:  # newer versions of Typer turn an interrupt into this code themselves
        _complain(f"interrupted; {_KEPT}")
    return code


def _complain(message: str) -> None:
    for line in message.splitlines():
        print(f"peftune: {line}", file=sys.stderr)  # noqa: T201 - the command line talks to people


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
    """Leave through the same doors as an interrupt, with the code of a terminated process."""
    raise SystemExit(TERMINATED)
