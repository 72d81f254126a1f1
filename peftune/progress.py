"""What a person sees while something works: a bar, or a line now and then, and no alarms of libraries.

On a terminal and in a notebook a stage has a bar of tqdm. Elsewhere the logger `peftune` says at least
every 30 seconds what is being done and how far it is. `logging.getLogger("peftune").setLevel("WARNING")`
switches both off. Light: tqdm is imported with the first bar.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from peftune.errors import UsageError, out_of_memory, visible

# Each is about something that is as it should be: an optional kernel package, how int8 works, a name
# that peft still calls, a loader on a machine without a GPU, a file system without fine time stamps.
_ALARMS = {
    "bitsandbytes.backends.cpu.ops": "gemm_4bit_forward",
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast",
    "transformers.modeling_utils": "newly initialized",
    "transformers.trainer_utils": "mtime may not be reliable",
}
WARNINGS: Sequence[tuple[str, type[Warning]]] = (
    (".*is_gradient_checkpointing.*", FutureWarning),
    (".*MatMul8bitLt: inputs will be cast.*", UserWarning),
    (".*pin_memory.*", UserWarning),
)


class _NoAlarm(logging.Filter):
    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the one message away."""
        return self._words not in record.getMessage()


@contextlib.contextmanager
def without_alarms() -> Iterator[None]:
    """Keep away, inside, the messages of libraries that alarm and mean nothing; no others."""
    filters = {name: _NoAlarm(words) for name, words in _ALARMS.items()}
    for name, each in filters.items():
        logging.getLogger(name).addFilter(each)
    try:
        with warnings.catch_warnings():
            ignore_alarming_warnings()
            yield
    finally:
        for name, each in filters.items():
            logging.getLogger(name).removeFilter(each)


def ignore_alarming_warnings() -> None:
    """Filter the warnings from here on: for a process of our own, or inside of `catch_warnings`."""
    for message, category in WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)


logger = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = "PEFTUNE_PROGRESS_SECONDS"
"""Environment variable: seconds of silence after which a line is due, in the place of 30."""

_SILENCE = 30.0
_DELAY = 2.0
"""Seconds that a stage takes before it has a bar."""


class Stage:
    """Something that takes time, and how far it is.

    Args:
        what: what is done, as in `measuring the base`.
        unit: what is counted, in the plural.
        total: how many there are; None where it is not known.
        bar: draw a bar for it; not where somebody else, such as Trainer, draws one.
    """

    def __init__(self, what: str, unit: str, total: int | None, *, bar: bool) -> None:
        self.what = what
        self.unit = unit
        self.total = total
        self.done = 0
        self.started = time.monotonic()
        self.draws = bar
        self._bar: Any = None
        self._lock = threading.Lock()

    def advance(self, count: int = 1) -> None:
        """Count what has been done."""
        self.done += count
        if self.draws and self.total is not None and shows_bars():
            self.draw(self.what)

    def draw(self, label: str) -> None:
        """Draw the bar as it is now; the first one after two seconds."""
        if time.monotonic() - self.started < _DELAY:
            return
        with self._lock:
            if self._bar is None:
                from tqdm.auto import tqdm

                form = None if self.total is not None else "{desc}, {elapsed}"
                unit = f" {self.unit}"
                self._bar = tqdm(
                    None, visible(label), self.total, unit=unit, leave=False, bar_format=form
                )
                self._bar.start_t -= time.monotonic() - self.started
            self._bar.update(self.done - self._bar.n)
            if self.total is None:
                self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        with self._lock:
            self.draws = False
            if self._bar is not None:
                self._bar.close()


def shows_bars() -> bool:
    """Say whether a person watches: a terminal or a notebook, with the log at its usual level."""
    if logging.getLogger("peftune").level > logging.INFO:
        return False
    if _on_terminal():
        return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


class _Watch:
    """The stages that are open, innermost last, and a thread that looks at them."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._last_output = 0.0
        self._ended = threading.Event()

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Look as long as the outermost stage lasts."""
        self._last_output = time.monotonic()
        self._ended = ended = threading.Event()
        silence = _silence()
        thread = threading.Thread(target=self._look, args=(ended, silence), daemon=True)
        heard = _Heard(self)
        logging.getLogger("peftune").addHandler(heard)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            logging.getLogger("peftune").removeHandler(heard)

    def hear(self) -> None:
        """Note that something was said."""
        self._last_output = time.monotonic()

    def _look(self, ended: threading.Event, silence: float) -> None:
        while not ended.wait(min(1.0, silence / 4)):
            stages = list(self.stages)
            if not stages:
                continue
            inner = stages[-1]
            if shows_bars() and (inner.total is not None or not inner.draws):
                continue
            if _on_terminal() and shows_bars():
                inner.draw(_label(stages))
            elif time.monotonic() - self._last_output >= silence:
                self.hear()
                logger.info("%s", _line(stages))


class _Heard(logging.Handler):
    """Tells the watch that something was said."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__(logging.INFO)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's signature
        """Note the record."""
        self._watch.hear()


def _silence() -> float:
    """Return after how many seconds of silence a line is due.

    Raises:
        UsageError: the environment variable holds no number above 0.
    """
    written = os.environ.get(SECONDS, str(_SILENCE))
    with contextlib.suppress(ValueError):
        if float(written) > 0:
            return float(written)
    message = f"The environment variable {SECONDS} must be a number of seconds above 0 (got '{written}')."
    raise UsageError(message)


_watch = _Watch()


def _label(stages: Sequence[Stage]) -> str:
    """Name the stages that are open, without the outermost, which is the whole."""
    return ", ".join(stage.what for stage in stages[1:] or stages)


def _line(stages: Sequence[Stage]) -> str:
    """Say what is done, how far it is, and for how long."""
    inner, phase = stages[-1], stages[min(1, len(stages) - 1)]
    counted = next((stage for stage in reversed(stages) if stage.done or stage.total), inner)
    total = "" if counted.total is None else f" of {counted.total:,}"
    known = counted.unit and (counted.done or counted.total)
    far = f"{counted.done:,}{total} {counted.unit}, " if known else ""
    return f"{_label(stages)}: {far}{time.monotonic() - phase.started:.0f} s"


@contextlib.contextmanager
def stage(
    what: str, *, unit: str = "", total: int | None = None, bar: bool = True
) -> Iterator[Stage]:
    """Show how far something is, for as long as the context lasts.

    Args:
        what: what is done, as in `measuring the base`.
        unit: what `advance` counts, in the plural.
        total: how many there are.
        bar: draw a bar for it; not where somebody else draws one.

    Yields:
        The stage, to be told how far it is.
    """
    entry = Stage(what, unit, total, bar=bar)
    _watch.stages.append(entry)
    try:
        yield entry
    finally:
        _watch.stages.remove(entry)
        entry.close()


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Let a person see what a whole call does, from inside of `stage`; a decorator of public functions.

    The log is set up where nobody has, and libraries' alarms that mean nothing are kept away; their
    warning filters are afterwards as they were.

    Args:
        what: what the call does, said where no stage inside of it is open.

    Raises:
        OutOfMemoryError: in the place of what a library says of memory that it did not get.
    """
    with contextlib.ExitStack() as stack:
        if not _watch.stages:
            log_to_stderr()
            stack.enter_context(without_alarms())
            stack.enter_context(_watch.looking())
        stack.enter_context(stage(what))
        try:
            yield
        except Exception as error:
            explained = out_of_memory(error)
            if explained is None:
                raise
            raise explained from error


def innermost() -> Stage | None:
    """Return the stage that was opened last, if any is open."""
    return _watch.stages[-1] if _watch.stages else None


def counted(
    items: Sequence[T], what: str, *, unit: str, count: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Go through items as a stage.

    Args:
        items: what is gone through.
        what: what is done with them.
        unit: what is counted, in the plural.
        count: how many of them an item holds.
    """
    with stage(what, unit=unit, total=sum(map(count, items))) as entry:
        for item in items:
            yield item
            entry.advance(count(item))


class _OneLine(logging.Formatter):
    """Writes a record in one line that does nothing to a terminal, whatever names stand in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Spell out what is not seen."""
        return visible(super().formatMessage(record))


def log_to_stderr() -> None:
    """Let the logger `peftune` speak to stderr, unless somebody has set up a log."""
    if not logging.getLogger().handlers:
        speak()


def speak() -> None:
    """Let the logger `peftune` speak to stderr, whatever other loggers do; once."""
    root = logging.getLogger("peftune")
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("peftune: %(message)s"))
    root.addHandler(handler)
    root.propagate = False
    if root.level == logging.NOTSET:
        root.setLevel(logging.INFO)
