"""Signals that end a command: each leaves through the same doors, with a code of its own."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from peftune.processes import send_to_main

INTERRUPTED = 130
TERMINATED = 143
HUNG_UP = 129

MESSAGES = {
    code: f"{word}; what had finished is kept, and the same command goes on from there."
    for code, word in {
        INTERRUPTED: "interrupted",
        TERMINATED: "terminated",
        HUNG_UP: "hung up",
    }.items()
}
"""The line that is printed with each code."""

_CODES = {"SIGINT": INTERRUPTED, "SIGTERM": TERMINATED, "SIGHUP": HUNG_UP}
_PATIENCE_SECONDS = 2.0
_AGAIN_SECONDS = 0.05


class Stops:
    """Turn the first signal into an exception, so that what works can put itself in order.

    A second one gives it two seconds more, and a third none: files are replaced whole, so that the
    process may end anywhere. A signal that was ignored when the process began, as under `nohup`
    and in the background jobs of a shell, stays ignored; a system without SIGHUP has two of them.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self._ended: int | None = None
        self._hurried = False

    def listen(self) -> None:
        """Take the signals; only the main thread can."""
        for name in _CODES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._hear)
        if sys.unraisablehook != self._say_again:
            sys.unraisablehook = self._say_again
            atexit.register(self._leave)  # the first of all, so that it is called as the last

    def end(self, code: int) -> None:
        """Say that the command has ended, all but its process."""
        self._ended = code

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        code = _CODES[signal.Signals(number).name]
        if self._ended is not None:
            os._exit(self.code or code)
        if self._hurried:
            self._leave_now()
        if self.code is not None:
            self._hurried = True
            timer = threading.Timer(_PATIENCE_SECONDS, self._leave_now)
            timer.daemon = True
            timer.start()
            return
        self.code = code
        raise SystemExit(code)

    def _leave_now(self) -> None:
        """End the process amid its work, with its line all the same."""
        code = self.code or INTERRUPTED
        with contextlib.suppress(
            OSError
        ):  # not through sys.stderr, whose lock another thread may hold
            os.write(2, f"peftune: {MESSAGES[code]}\n".encode())
        os._exit(code)

    def _leave(self) -> None:
        """End a process that was stopped before Python takes itself apart.

        That fails where a thread still reads standard input, or where the terminal is gone.
        """
        if self.code is not None and self._ended is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(self._ended)

    def _say_again(self, lost: Any) -> None:  # noqa: ANN401 - sys.UnraisableHookArgs is not a class at run time
        """Repeat a signal that came while Python was clearing garbage away, where it is lost."""
        if self.code is None or not isinstance(lost.exc_value, SystemExit):
            sys.__unraisablehook__(lost)
            return
        name = next(name for name, code in _CODES.items() if code == self.code)
        self.code = None
        timer = threading.Timer(_AGAIN_SECONDS, send_to_main, (getattr(signal, name),))
        timer.daemon = True
        timer.start()


STOPS = Stops()
"""Those of this process."""


def complain(message: str) -> None:
    """Print a message to stderr, each line with the name of the command."""
    for line in message.splitlines():  # a line break inside of a name is spelled out before
        with contextlib.suppress(OSError):  # nobody reads it any more
            print(f"peftune: {line}", file=sys.stderr)  # noqa: T201 - the command line talks to people
