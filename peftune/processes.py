"""Processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

PARENT = "PEFTUNE_PARENT"
"""Environment variable of a process that is to end with the one that holds its standard input."""

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 2.0


def end_with_parent() -> None:
    """End this process and its workers with the one that started it, however that ends.

    On Linux the system sends SIGKILL. Everywhere the end of standard input, a pipe that the parent
    holds, tells it, also where the parent had ended before this was called.
    """
    if os.environ.pop(PARENT, None) is None:
        return
    if sys.platform == "linux":
        import ctypes

        prctl = ctypes.CDLL(None).prctl

        def die_with_parent() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

        die_with_parent()
        os.register_at_fork(after_in_child=die_with_parent)
    threading.Thread(target=_watch_parent, daemon=True).start()


def send_to_main(number: int) -> None:
    """Send a signal to the main thread, which may be asleep."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _watch_parent() -> None:
    # Not `sys.stdin`, whose lock Python could not take when it ends.
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    send_to_main(signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
