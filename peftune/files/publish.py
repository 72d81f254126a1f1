"""Put a folder in its place whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from peftune.errors import OutputFolderError
from peftune.files.exchange import exchange

_CHUNK = 1 << 20
_STAGED = ".partial"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM_IN_WORDS = (
    *(f"(os error {number})" for number in _NO_ROOM),  # safetensors, which is written in Rust
    "PytorchStreamWriter failed",
    "inline_container.cc",  # torch
)


def make_writable(folder: Path) -> None:
    """Make an output folder, before anything is computed for it.

    Raises:
        OutputFolderError: it cannot be made, or no file can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        message = (
            f"'{folder}' cannot be written: {reason}. Choose another output folder with --output."
        )
        raise OutputFolderError(message) from error


def found_no_room(error: BaseException) -> bool:
    """Say whether a write failed for want of room, whichever library wrote."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return any(sign in str(error) for sign in _NO_ROOM_IN_WORDS)


@contextlib.contextmanager
def published(target: Path) -> Iterator[Path]:
    """Give a staging folder beside the target; on success it takes the target's place.

    Files reach the disk before the rename. On an error or an interrupt the staging folder is
    removed. Whenever the process ends, by whatever signal, the target is the old folder or the
    new one, never a part; the next save there removes what a killed one left beside it. Where the
    system cannot exchange two folders in one step, a kill between two renames leaves the old
    folder beside the target, as `.NAME.….old/NAME`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    staging = Path(
        tempfile.mkdtemp(
            prefix=f"{_prefix(target)}{os.getpid()}-", suffix=_STAGED, dir=target.parent
        )
    )
    try:
        yield staging
        staging.chmod(0o755)
        for path in staging.iterdir():
            path.chmod(0o644)
            _sync(path)
        _sync(staging)
        _swap(staging, target)
        _sync(target.parent)
    finally:
        # After the swap this is the folder that was replaced.
        shutil.rmtree(staging, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file, piece by piece; the folder around it is published afterwards."""
    handle = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644
    )
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view[:_CHUNK]) :]
    finally:
        os.close(handle)


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    if exchange(staging, target):
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    old = aside / target.name
    try:
        target.rename(old)
        staging.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        # Never before something stands in its place.
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what saves to the same target left behind when their process was killed."""
    prefix = _prefix(target)
    for path in target.parent.iterdir():
        if path.name.startswith(prefix) and path.name.endswith(_STAGED):
            process = path.name.removeprefix(prefix).partition("-")[0]
            if process.isdigit() and not _is_alive(int(process)):
                shutil.rmtree(path, ignore_errors=True)


def _prefix(target: Path) -> str:
    """Name staging folders by machine too: a process of another one cannot be asked for."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return f".{target.name}.{machine}-"


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # there, signal 0 would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
