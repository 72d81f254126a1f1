"""The faults peftune reports: each is a `PeftuneError` and the builtin that fits."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from typing import ClassVar

LONGEST_MESSAGE = 2000


class PeftuneError(Exception):
    """A fault that peftune explains in one line."""

    exit_code: ClassVar[int] = 1


class UsageError(PeftuneError, ValueError):
    """An argument cannot be used as given."""

    exit_code = 3


class RecipeError(UsageError):
    """A recipe does not say what it must, or says what it may not."""


class DataError(UsageError):
    """Rows, labels or files of the data cannot be used as given."""


class BaseModelError(UsageError):
    """The base model cannot be found, read or used."""


class ArtifactError(UsageError):
    """A saved artifact is damaged, unknown, or belongs to another base.

    Names out of a foreign file may stand in the message, so it is kept to one printable line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class HubError(ArtifactError, ConnectionError):
    """The hub cannot be reached, is too slow, or does not answer as it must."""

    exit_code = 1


class PluginError(UsageError, ImportError):
    """A plug-in cannot be found, imported or used."""


class OutputFolderError(UsageError, FileExistsError):
    """The output folder holds something that a run must not overwrite."""


class GuardError(PeftuneError, RuntimeError):
    """A strategy left the model in a state that would give wrong results."""


class TrainingError(PeftuneError, RuntimeError):
    """Training reached a state from which no good adapter can come."""


class StorageError(PeftuneError, OSError):
    """What was made could not be written."""


class OutOfMemoryError(PeftuneError, MemoryError):
    """The machine or its GPU has no more memory to give."""


class GateError(PeftuneError, RuntimeError):
    """A declared limit was passed."""

    exit_code = 2


class VerificationError(GateError):
    """A model does not compute what its record says, or what it was made of."""


class LeakageError(GateError):
    """What is reported has been read in training, or decides something there."""


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Say the nearest allowed name, then all of them: `Did you mean 'lora'? Available: …`."""
    names = sorted(allowed)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean '{nearest[0]}'? " if nearest else ""
    return f"{hint}Available: {', '.join(names) or 'none'}."


def printable(text: str) -> str:
    """Return a text in one line of at most 2,000 characters, each of which can be seen."""
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
    return shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:LONGEST_MESSAGE]}…"


def first_line(error: BaseException) -> str:
    """Return what another package says of a fault, in one line without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no message"


_NO_MEMORY = re.compile(
    r"out of memory|out_of_memory|(can't|cannot|could not|failed to|unable to) (allocate|mmap|create a memory|create a primitive|execute a primitive)"
    r"|bad_?alloc|cudaErrorMemoryAllocation|can't start new thread|failed to map segment|ALLOC_FAILED",
    re.IGNORECASE,
)
"""What torch, oneDNN, cuBLAS, bitsandbytes, the loader of libraries and Python say."""

_ASKED = re.compile(r"tried to allocate (?P<amount>[\d.]+ ?\w+)", re.IGNORECASE)


def out_of_memory(error: BaseException) -> OutOfMemoryError | None:
    """Return what is to be said of an error if memory has run out; None for any other error."""
    if isinstance(error, PeftuneError):
        return None
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    # Imports and threads fail in words alone; a library of CUDA has its own kinds of errors.
    in_words = isinstance(error, (RuntimeError, ImportError)) and _NO_MEMORY.search(str(error))
    if not (isinstance(error, MemoryError) or of_system or in_words):
        return None
    asked = _ASKED.search(str(error))
    amount = f": {asked['amount']} more could not be had" if asked else ""
    message = f"There is not enough memory{amount}. 'peftune plan RECIPE' says what a run needs; lower training.per_device_train_batch_size (with more gradient_accumulation_steps), or set training.activation_checkpointing: true. What had finished is kept."
    return OutOfMemoryError(message)
