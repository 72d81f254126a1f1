"""The faults peftune reports: each is a `PeftuneError` and the builtin that fits."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from typing import Any, ClassVar

LONGEST_MESSAGE = 2000

_JOINERS = re.compile("[\u200c\u200d]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_PICTURES = re.compile("[\U0001f000-\U0001fbff]")
"""Blocks of emoji, which grow faster than the tables of a Python that is a few years old."""


class PeftuneError(Exception):
    """A fault that peftune explains, in a line for each thing that is wrong.

    Names out of the files of others stand in its lines, so each is made printable: a line break
    inside a name is spelled out, and only lines that were given apart stand apart.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, *lines: str) -> None:
        self._lines = tuple(map(printable, lines))
        super().__init__("\n".join(self._lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a copy, such as one from another process, keep its lines apart."""
        return type(self), self._lines, self.__dict__


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
    """A saved artifact is damaged, unknown, or belongs to another base."""


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
    """A declared limit was passed. What was made is kept, and the error carries it.

    Attributes:
        run: the `Run` of `peftune.run`; None for other verbs.
        comparison: the `Comparison` of `peftune.compare`; None for other verbs.
        forgetting: what `peftune.forget` measured before its self-test failed; None for other verbs.
    """

    exit_code = 2
    run: Any = None
    comparison: Any = None
    forgetting: Any = None


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
    shown = visible(text)
    return shown if len(shown) <= LONGEST_MESSAGE else f"{shown[:LONGEST_MESSAGE]}…"


def visible(text: str) -> str:
    r"""Spell out what acts on a terminal or is not seen, in any text that others wrote, on one line.

    Line breaks and every other control character, characters that turn the direction of writing,
    those without width, tags and lone surrogates are written as Python writes them, such as `\x1b`
    and `\u202e`. Spaces of every width stay. The joiners U+200C and U+200D stay between two
    characters beyond ASCII, where Persian, the languages of India and emoji are spelled with them.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or _is_in_place(text, index) else _spelled_out(one)
        for index, one in enumerate(text)
    )


def visible_lines(text: str) -> str:
    """Spell out what is not seen in each line of a text whose line breaks are ours."""
    return "\n".join(map(visible, text.split("\n")))


def _is_in_place(text: str, index: int) -> bool:
    """Say whether a character that Python does not count as printable belongs into its text."""
    one = text[index]
    if not _JOINERS.match(one):
        return bool(_SPACES.match(one) or _PICTURES.match(one))
    beside = text[max(0, index - 1) : index] + text[index + 1 : index + 2]
    return len(beside) == 2 and beside.isprintable() and not re.search(r"[\x00-\x7f]", beside)  # noqa: PLR2004 - one on each side


def _spelled_out(character: str) -> str:
    return character.encode("unicode_escape").decode()


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
    """Return the message of an error if memory has run out; None for any other error."""
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


_MARKS = re.compile(r"([\\`*_\[\]|#~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_HTML = re.compile("[&<>]")
_PLAIN = re.compile(r"[\w./:@+,() -]+")


def markdown_text(text: str) -> str:
    """Keep a text from being read as Markdown or HTML, on one line."""
    shown = visible(" ".join(text.split()))
    marked = _MARKS.sub(r"\\\1", shown)
    return _HTML.sub(lambda found: _ENTITIES[found[0]], marked)


def markdown_code(text: str) -> str:
    """Set a name as code, or, where it could end the code, as text."""
    return f"`{text}`" if _PLAIN.fullmatch(text) and visible(text) == text else markdown_text(text)
