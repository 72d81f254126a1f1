"""Open plain files only: no links, no pipes, no more bytes than a file may have."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftune.errors import ArtifactError

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
        ArtifactError: it cannot be opened, is no plain file, is too large, or changes meanwhile.
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
        ArtifactError: it cannot be opened or read, or is no plain file.
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
    return f"'{name}' is no plain file, and is not opened."
