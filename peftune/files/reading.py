"""Open plain files only: no links, no pipes, no more bytes than a file may have."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peftune.errors import ArtifactError, UsageError, printable

# Windows has neither flag, and neither links nor pipes in folders that are fetched.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_plain(path: Path, *, limit: int, shown: str | None = None, follow: bool = False) -> bytes:
    """Read a file through one handle: what is checked is what is returned.

    Args:
        path: where it lies; its last part is not followed if it is a link.
        limit: most bytes it may have; a larger one is not read.
        shown: how messages call it; its path if not given.
        follow: follow a link, to a plain file.

    Raises:
        ArtifactError: it cannot be opened, is not a plain file, is too large, or changes meanwhile.
    """
    name = shown or str(path)
    with open_plain(path, shown=name, follow=follow) as (handle, size):
        if size > limit:
            message = f"'{name}' has {size} bytes, and may have {limit}; it is not read."
            raise ArtifactError(message)
        return read_exactly(handle, size, shown=name, at_end=True)


@contextmanager
def open_plain(path: Path, *, shown: str, follow: bool = False) -> Iterator[tuple[int, int]]:
    """Open a file if it is a plain one, and never wait for it.

    Args:
        path: where it lies.
        shown: how messages call it.
        follow: follow a link, to a plain file.

    Yields:
        A handle, and the bytes of the file.

    Raises:
        ArtifactError: it cannot be opened or read, or is not a plain file.
    """
    try:
        handle = os.open(path, _FLAGS | (0 if follow else _NO_LINK))
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EMLINK}:
            raise ArtifactError(_not_plain(shown)) from error
        message = f"'{shown}' cannot be opened: {os.strerror(error.errno or 0)}."
        raise ArtifactError(message) from error
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ArtifactError(_not_plain(shown))
        yield handle, facts.st_size
    except OSError as error:
        message = f"'{shown}' cannot be read: {os.strerror(error.errno or 0)}."
        raise ArtifactError(message) from error
    finally:
        os.close(handle)


def read_exactly(handle: int, size: int, *, shown: str, at_end: bool = False) -> bytes:
    """Read the next bytes of an open file.

    Args:
        handle: from `open_plain`.
        size: bytes to read.
        shown: how messages call the file.
        at_end: whether the file must end with them.

    Raises:
        ArtifactError: there are fewer, or more where it must end.
    """
    with open(handle, "rb", buffering=0, closefd=False) as file:
        parts: list[bytes] = []
        left = size + at_end
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    content = b"".join(parts)
    if len(content) != size:
        message = f"'{shown}' changed while it was read. Fetch it again."
        raise ArtifactError(message)
    return content


def _not_plain(name: str) -> str:
    return f"'{name}' is not a plain file, and is not opened."


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


MAX_ENTRIES = 64
"""Most entries that a folder may have; an artifact has fewer than ten."""


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """Files that somebody else may have written; each is opened on its own, and read once.

    Args:
        name: how messages call the folder: its path, or `user/name@commit`.
        entries: where the bytes of each file lie, by the file's name.
        path: the folder on this machine; None for one that lies on the hub.
    """

    name: str
    entries: Mapping[str, Path]
    path: Path | None = None

    def read(self, name: str, *, limit: int) -> bytes:
        """Read a file, if it is plain and has at most `limit` bytes.

        Raises:
            ArtifactError: it is missing, no plain file, or too large.
        """
        if name not in self.entries:
            message = f"'{self.name}/{name}' is missing; the artifact is incomplete or was changed. Fetch it again."
            raise ArtifactError(message)
        return read_plain(self.entries[name], limit=limit, shown=f"{self.name}/{name}")

    def refuse_others(self, allowed: Collection[str]) -> None:
        """Refuse entries beyond the allowed ones; none of them is opened.

        Raises:
            ArtifactError: there is another one.
        """
        for name in sorted(set(self.entries) - set(allowed)):
            message = f"'{self.name}/{name}' does not belong into an artifact, and is not opened. Remove it."
            raise ArtifactError(message)


def local_folder(path: Path) -> SharedFolder:
    """List a folder of this machine.

    Raises:
        ArtifactError: it is not a folder that can be read, or has too many entries.
    """
    try:
        with os.scandir(path) as found:
            entries = {
                entry.name: path / entry.name for entry in itertools.islice(found, MAX_ENTRIES + 1)
            }
    except OSError as error:
        message = f"'{path}' cannot be opened: {os.strerror(error.errno or 0)}."
        raise ArtifactError(message) from error
    if len(entries) > MAX_ENTRIES:
        message = f"'{path}' has more than {MAX_ENTRIES} entries, so it is not an artifact."
        raise ArtifactError(message)
    return SharedFolder(str(path), entries, path)
