"""One owner of a folder at a time: a lock of the system, and who holds it in words."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from peftune.errors import OutputFolderError, printable

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""The file in a folder that has an owner; one that a killed process left binds nobody."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK}
_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 0.5
_CLOCK_SECONDS = 2.0
_LONGEST_COMMAND = 120

_descriptors: set[int] = set()
"""Those of the locks of this process, which its forks give back."""
_owned: set[str] = set()
"""Folders that are locked by their record alone, of which no thread may take one twice."""
_guard = threading.Lock()


@contextlib.contextmanager
def owned(folder: Path, *, wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Own a folder, which is made where it is missing, until the end of the `with`.

    The system gives the lock back when the process ends, however it ends. On a file system without
    locks the record in the file decides: host, process and the time at which the process began.

    Args:
        folder: nobody else may write there meanwhile.
        wait: called again and again until the folder is free; None to be refused.

    Raises:
        OutputFolderError: another process owns the folder, or it cannot be written.
    """
    made = _make(folder)
    try:
        release = _take(folder, wait)
    except OutputFolderError:
        _remove_empty(made)
        raise
    try:
        yield
    finally:
        release()
        _remove_empty(made)


def _make(folder: Path) -> list[Path]:
    """Make a folder, and return what was missing of it, innermost first."""
    try:
        is_file = folder.exists() and not folder.is_dir()
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        if not is_file:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if is_file:
        message = f"'{folder}' is a file. Choose another output folder with --output."
        raise OutputFolderError(message)
    return made


def _unwritable(folder: Path, error: OSError) -> OutputFolderError:
    return OutputFolderError(
        f"'{folder}' cannot be written: {error.strerror}. Choose another output folder with --output."
    )


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders that were made for nothing, innermost first."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _take(folder: Path, wait: Callable[[], None] | None) -> Callable[[], None]:
    while True:
        try:
            release = _locked(folder / LOCK)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise _unwritable(folder, error) from error
            release = _recorded(folder)
        if release is not None:
            return release
        if wait is None:
            raise OutputFolderError(_refusal(folder))
        wait()
        time.sleep(_POLL_SECONDS)


def _locked(path: Path) -> Callable[[], None] | None:
    """Lock a file as the system does; None where another descriptor holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
            # Its owner removes the file: whoever had opened it before holds a file without a name.
            if _is_at(handle, path):
                _write(handle)
                break
        except OSError as error:
            os.close(handle)
            if error.errno in _HELD:
                return None
            raise
        os.close(handle)
    with _guard:
        _give_back_in_forks()
        _descriptors.add(handle)

    def release() -> None:
        with _guard:
            _descriptors.discard(handle)
        if os.name != "posix":  # an open file cannot be removed there
            os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if os.name == "posix":
            os.close(handle)

    return release


def hold(handle: int) -> bool:
    """Lock an open file until it is closed, and say whether nobody else holds it.

    A file system without locks cannot tell, and gives it to everybody.
    """
    try:
        _lock(handle)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _UNSUPPORTED:
            raise
    return True


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # beyond the record, which others read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
        return
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _write(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(process_record()).encode("utf-8"))


def _give_back_in_forks() -> None:
    """Let no worker of this process hold its locks when it has ended."""
    global _forks_give_back  # noqa: PLW0603 - once a process
    if not _forks_give_back and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_all)
        _forks_give_back = True


_forks_give_back = False


def _close_all() -> None:
    for handle in _descriptors:
        with contextlib.suppress(OSError):
            os.close(handle)
    _descriptors.clear()


# Without locks of the system


def _recorded(folder: Path) -> Callable[[], None] | None:
    """Own a folder by a record alone; None where another process that may live has one there."""
    path, key, mine = folder / LOCK, str(folder.resolve()), process_record()
    with _guard:
        if key in _owned:
            return None
        _owned.add(key)
    try:
        holder = _holder(folder)
        if holder.get("key") is not None and not has_ended(holder):
            _forget(key)
            return None
        staged = path.with_name(f"{LOCK}.{mine['key']}.partial")
        staged.write_text(json.dumps(mine), encoding="utf-8")
        staged.replace(path)
        time.sleep(_SETTLE_SECONDS)  # of two that begin together, the last to write is the owner
        if _holder(folder).get("key") != mine["key"]:
            _forget(key)
            return None
    except BaseException:
        _forget(key)
        raise
    logger.warning(
        "'%s' is on a file system without locks; its owner is told by '%s'", folder, path
    )

    def release() -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        _forget(key)

    return release


def _forget(key: str) -> None:
    with _guard:
        _owned.discard(key)


def has_ended(holder: Mapping[str, Any]) -> bool:
    """Return whether a process of this machine has ended; of another one it cannot be told.

    Args:
        holder: a `process_record`.
    """
    if holder.get("host") != platform.node():
        return False
    began = _beginning(int(holder.get("process", 0)))
    return began is None or abs(began - float(holder.get("began") or 0)) > _CLOCK_SECONDS


def _beginning(process: int) -> float | None:
    """Return when a process began, in seconds since 1970; None where there is none."""
    import psutil

    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return None


# What a lock says


def process_record() -> dict[str, Any]:
    """Describe this process, so that another one can tell whether it lives."""
    return {
        "key": secrets.token_hex(8),
        "host": platform.node(),
        "process": os.getpid(),
        "began": _beginning(os.getpid()),
        "since": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": _command(),
    }


def _command() -> str:
    program = Path(sys.argv[0] if sys.argv else "")
    name = program.parent.name if program.stem == "__main__" else program.name
    return printable(" ".join([name, *sys.argv[1:]]))[:_LONGEST_COMMAND]


def _holder(folder: Path) -> dict[str, Any]:
    """Read who owns a folder; nothing where it is not told, as in the moment of taking it."""
    try:
        values = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _refusal(folder: Path) -> str:
    holder = _holder(folder)
    if not holder:
        time.sleep(_POLL_SECONDS)
        holder = _holder(folder)
    who = "another process"
    if holder:
        owner = {name: printable(str(holder.get(name)))[:200] for name in holder}
        who = f"process {owner.get('process')} on {owner.get('host')} since {owner.get('since')} ({owner.get('command')})"
    elsewhere = holder.get("host") not in (None, platform.node())
    remedy = f", or remove '{folder / LOCK}' if it has ended" if elsewhere else ""
    return f"'{folder}' is in use by {who}. Wait for it to end{remedy}, or choose another output folder with --output."
