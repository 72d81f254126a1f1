"""Interrupts that are neither lost nor come at a bad moment."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupts:
    """Let a signal that ends the process wait, inside a `with` block, until somebody asks for it.

    An exception out of nowhere is lost where Python clears garbage away, of which the storage
    leaves much, and breaks optuna where it is writing. So the first signal ends a trial at its next
    step, and only a second one ends it at once. What the signal does is up to whoever handled it before.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._pending: int | None = None
        self._acted = False

    def __enter__(self) -> Self:
        """Listen; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back.

        Raises:
            BaseException: see `check`.
        """
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None and not self._acted:
            self.check()  # what came after the last check is not lost

    def check(self) -> None:
        """Act on a signal that has come.

        Raises:
            KeyboardInterrupt: or what else the earlier handler raises.
        """
        if self._pending is not None:
            self._acted = True
            self._before[self._pending](self._pending, None)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._pending is not None:
            self._before[number](number, frame)
        self._pending = number
