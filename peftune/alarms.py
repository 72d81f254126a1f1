"""Messages of libraries that alarm and mean nothing; no others are kept from a user."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

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
