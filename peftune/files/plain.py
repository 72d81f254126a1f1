"""Read one plain file, once: no links, no pipes, no more bytes than it may have."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from peftune.errors import ArtifactError

# Windows has neither flag, and neither links nor pipes in folders that are fetched.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_plain(path: Path, *, limit: int, shown: str | None = None) -> bytes:
    """Read a file through one handle: what is checked is what is returned.

    Args:
        path: where it lies; its last part is not followed if it is a link.
        limit: most bytes it may have; a larger one is not read.
        shown: how messages call it; its path if not given.

    Raises:
        ArtifactError: it cannot be opened, is no plain file, is too large, or changes meanwhile.
    """
    name = shown or str(path)
    try:
        handle = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EMLINK}:
            raise ArtifactError(_not_plain(name)) from error
        message = f"'{name}' cannot be opened: {os.strerror(error.errno or 0)}."
        raise ArtifactError(message) from error
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ArtifactError(_not_plain(name))
        if facts.st_size > limit:
            message = f"'{name}' has {facts.st_size} bytes, and may have {limit}; it is not read."
            raise ArtifactError(message)
        return _content(handle, facts.st_size, name)
    except OSError as error:
        message = f"'{name}' cannot be read: {os.strerror(error.errno or 0)}."
        raise ArtifactError(message) from error
    finally:
        os.close(handle)


def _content(handle: int, size: int, name: str) -> bytes:
    with open(handle, "rb", closefd=False) as file:
        content = file.read(size + 1)
    if len(content) != size:
        message = f"'{name}' changed while it was read. Fetch it again."
        raise ArtifactError(message)
    return content


def _not_plain(name: str) -> str:
    return f"'{name}' is no plain file, and is not opened."
