"""Put a file or a folder in its place whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from peftune.errors import OutputFolderError, PeftuneError, StorageError, first_line

_CURRENT_FOLDER = -100
_EXCHANGE = 2
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders of one file system: at every moment both names are whole folders.

    Returns:
        Whether it was done; False where the system or the file system cannot.

    Raises:
        OSError: it can, and failed.
    """
    if not sys.platform.startswith(("linux", "darwin")):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    one, other = os.fsencode(first), os.fsencode(second)
    if hasattr(library, "renameat2"):  # Linux
        failed = library.renameat2(_CURRENT_FOLDER, one, _CURRENT_FOLDER, other, _EXCHANGE)
    elif hasattr(library, "renamex_np"):  # macOS
        failed = library.renamex_np(one, other, _EXCHANGE)
    else:
        return False
    if not failed:
        return True
    fault = ctypes.get_errno()
    if fault in _CANNOT:
        return False
    raise OSError(fault, os.strerror(fault), str(second))


_CHUNK = 1 << 20
_STAGED = ".partial"
_STAGED_BY = re.compile(
    r"\.(?P<target>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[^-]*\.partial\Z"
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_OF_WRITING = (*_NO_ROOM, errno.EROFS, errno.EIO, 0)
"""What no read ends in but on a broken disk."""
_NUMBER = re.compile(r"\(os error (\d+)\)")
"""How safetensors, which is written in Rust, names a fault of the system."""
_TORCH_WRITES = ("PytorchStreamWriter failed", "inline_container.cc", "iostream error")
_LITTLE = 1 << 20


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


@contextlib.contextmanager
def writing(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn a write that fails, whichever library writes, into one line that names the place.

    Args:
        path: the file or folder that is written.
        needed: its bytes, where they are known.

    Raises:
        StorageError: with the path, what the system says, and the bytes needed and free.
    """
    try:
        yield
    except Exception as error:
        fault = failed_write(error, path, needed=needed, any_fault=True)
        if fault is None:
            raise
        raise fault from error


def failed_write(
    error: BaseException, path: Path, *, needed: int | None = None, any_fault: bool = False
) -> StorageError | None:
    """Return the message of an error if a write has failed; None for any other error.

    Args:
        error: of any library.
        path: what was written, if the error names no file.
        needed: bytes of it, where they are known.
        any_fault: nothing but writing was done, so that any fault of the system is one of it.
    """
    if isinstance(error, PeftuneError):
        return None
    number = _system_number(error, path)
    if number is None or not (any_fault or number in _OF_WRITING):
        return None
    named = getattr(error, "filename", None)
    place = path if any_fault or not isinstance(named, str) else Path(named)
    if number in _NO_ROOM:
        remedy = "make room"
    elif number in _NOT_WRITABLE:
        remedy = "make it writable"
    else:
        remedy = "see to the disk"
    free = free_bytes(path)
    counts = [] if needed is None else [f"{needed:,} bytes needed"]
    counts += [] if free is None else [f"{free:,} bytes free"]
    room = f" ({', '.join(counts)})" if counts else ""
    reason = os.strerror(number) if number else first_line(error)
    message = f"'{_as_target(place)}' could not be written: {reason}{room}. What had finished is kept: {remedy}, and run the same command again."
    return StorageError(message)


def free_bytes(path: Path) -> int | None:
    """Count the bytes that are free where a path lies or will lie; a quota may allow fewer."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def _system_number(error: BaseException, path: Path) -> int | None:
    """Return the number that the system gives a fault, 0 where a library lost it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    words = str(error)
    if number := _NUMBER.search(words):
        return int(number[1])
    if not any(sign in words for sign in _TORCH_WRITES):
        return None
    known = [number for number in errno.errorcode if words.endswith(f": {os.strerror(number)}")]
    free = free_bytes(path)
    # Of a write that the system cuts short torch only says "unexpected pos 576 vs 534".
    return known[0] if known else errno.ENOSPC if free is not None and free < _LITTLE else 0


def _as_target(path: Path) -> Path:
    """Name what lies in a staging folder as it is called once it is published."""
    parts = [found["target"] if (found := _STAGED_BY.match(part)) else part for part in path.parts]
    return Path(*parts)


@contextlib.contextmanager
def published(target: Path) -> Iterator[Path]:
    """Give a staging folder beside the target; on success it takes the target's place.

    Files reach the disk before the rename. On an error or an interrupt the staging folder is
    removed. Whenever the process ends, by whatever signal, the target is the old folder or the
    new one, never a part; the next save there removes what a killed one left beside it. Where the
    system cannot exchange two folders in one step, a kill between two renames leaves the old
    folder beside the target, as `.NAME.….old/NAME`.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        staging = Path(
            tempfile.mkdtemp(
                prefix=f"{_prefix(target)}{os.getpid()}-", suffix=_STAGED, dir=target.parent
            )
        )
    try:
        with writing(target):
            yield staging
            staging.chmod(0o755)
            for path in staging.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
                _sync(path)
            _sync(staging)
            _swap(staging, target)
            _sync(target.parent)
    finally:
        # After the swap this is the folder that was replaced.
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def replaced(path: Path, *, needed: int | None = None) -> Iterator[BinaryIO]:
    """Give a file to write beside the path; on success it takes the path's place.

    What is written reaches the disk before the rename, so that a kill or a loss of power leaves the
    old file or the new one. What a killed process left beside it is removed by the next write.

    Args:
        path: the file.
        needed: its bytes, where they are known.

    Raises:
        StorageError: it could not be written; an older one is still there.
    """
    staged = path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}{_STAGED}")
    with writing(path, needed=needed):
        _sweep(path)
        try:
            with staged.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, path)  # noqa: PTH105 - says that it is atomic
        except BaseException:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
        if os.name == "posix":
            _sync(path.parent)


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8, its ends of lines as they are.

    Raises:
        StorageError: it could not be written; an older one is still there.
    """
    encoded = content.encode("utf-8") if isinstance(content, str) else content
    with replaced(path, needed=len(encoded)) as file:
        file.write(encoded)


def is_staged(name: str) -> bool:
    """Say whether a name is that of a file or folder which was not finished."""
    return name.startswith(".") and name.endswith(_STAGED)


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder that this process alone writes to."""
    for path in folder.iterdir():
        if not is_staged(path.name):
            continue
        found = _STAGED_BY.match(path.name)
        here = found is not None and found["machine"] == _machine()
        # Readers of a finished run may be writing its report at this moment.
        if found is None or not here or not _is_other(int(found["process"])):
            _remove(path)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file, piece by piece; the folder around it is published afterwards.

    Raises:
        StorageError: it could not be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with writing(path, needed=len(content)):
        handle = os.open(path, flags, 0o644)
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
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    """Name what is staged by machine too: a process of another one cannot be asked for."""
    return f".{target.name}.{_machine()}-"


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_other(process: int) -> bool:
    return process != os.getpid() and _is_alive(process)


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
