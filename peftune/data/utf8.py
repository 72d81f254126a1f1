"""Read text files that are UTF-8, and say where and what else they are if they are not."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from peftune.errors import DataError

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LETTERS = re.compile(r"\w{0,20}")
_LETTERS_BEFORE = re.compile(r"\w{0,20}\Z")


def read_utf8(path: Path) -> str:
    """Read a text file whole, without a byte order mark; line ends stay as they are.

    Raises:
        DataError: it cannot be read, or is not UTF-8; with the byte, the line and a likely encoding.
    """
    with open_utf8(path, newline="") as file:
        return file.read()


@contextmanager
def open_utf8(path: Path, *, newline: str) -> Iterator[TextIO]:
    """Open a text file to be read piece by piece.

    Args:
        path: the file; a byte order mark at its beginning is no part of the text.
        newline: as for `open`: "" ends a line at every kind of line end, a line feed only there.

    Raises:
        DataError: it cannot be read, or is not UTF-8; with the byte, the line and a likely encoding.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        # The error counts from a block's beginning; what it is about is looked for once more.
        raise DataError(_not_utf8(path)) from error
    except OSError as error:
        message = f"'{path}' cannot be read: {error.strerror}."
        raise DataError(message) from error


def _not_utf8(path: Path) -> str:
    position, line = 0, 1
    with path.open("rb") as file:
        for content in file:
            try:
                content.decode()
            except UnicodeDecodeError as error:
                position += error.start
                line += _line_ends(content[: error.start])
                return f"'{path}' is not UTF-8: byte 0x{content[error.start]:02x} at position {position}, line {line}. {_likely(content, error.start)}Save the file as UTF-8."
            position += len(content)
            line += _line_ends(content)
    return f"'{path}' is not UTF-8, or was changed while it was read. Save the file as UTF-8."


def _line_ends(content: bytes) -> int:
    return len(_LINE_END.findall(content))


def _likely(line: bytes, fault: int) -> str:
    """Guess the encoding of a line that is no UTF-8 from its byte order mark, or from what is there."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "It looks like UTF-16. "
    try:
        text = line.decode("cp1252")  # one character a byte
    except UnicodeDecodeError:
        return ""
    before, after = _LETTERS_BEFORE.search(text[:fault]), _LETTERS.match(text[fault + 1 :])
    word = f"{before[0] if before else ''}{text[fault]}{after[0] if after else ''}"
    return f"It may be Windows-1252, which reads '{word}' there. "
