"""Paths and names as a user gives them: refused in one line where the system could not take them."""

from __future__ import annotations

import os
from pathlib import Path

from peftune.errors import UsageError, printable

_LONGEST_PART = 255
"""Bytes that one part of a path may have on every common file system."""

_LONGEST_PATH = 4095
_SHOWN = 60


def given_path(value: object, argument: str) -> Path:
    """Return a path that a user gave.

    Args:
        value: what was given.
        argument: how messages call it, such as `output` or `data.train_file`.

    Raises:
        UsageError: it is not text, or not a path that a system could have.
    """
    return Path(given_name(value, argument))


def given_name(value: object, argument: str) -> str:
    """Return a path, or a name that may be one, as text.

    Raises:
        UsageError: as `given_path`.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        message = f"{argument}: a path or a name is text, such as 'runs/mine' (got {type(value).__name__})."
        raise UsageError(message)
    reason = _impossible(text)
    if reason is not None:
        shown = printable(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
        message = f"{argument}: '{shown}' cannot be a path: {reason}. Give a path that a file system can hold."
        raise UsageError(message)
    return text


def _impossible(text: str) -> str | None:
    """Say why no file system could hold a path; None if one could."""
    if not text:
        return "it is empty"
    if "\0" in text:
        return "it has a NUL character"
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        return "it has a character that no encoding knows"
    longest = max(map(len, encoded.split(os.fsencode(os.sep))))
    if longest > _LONGEST_PART:
        return f"a part of it has {longest} bytes, and may have {_LONGEST_PART}"
    if len(encoded) > _LONGEST_PATH:
        return f"it has {len(encoded)} bytes, and may have {_LONGEST_PATH}"
    return None
