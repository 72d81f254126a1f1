"""An audit hook that notes what no load may do, and keeps the worst of it from happening."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostile.payloads import EVIL_MODULE

_REFUSED = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "pty.spawn",
    "pickle.find_class",
    "webbrowser.open",
    "urllib.Request",
    "http.client.connect",
)
_LIBRARIES = tuple(
    {
        os.path.realpath(path)
        for path in (
            sys.prefix,
            sys.base_prefix,
            *sysconfig.get_paths().values(),
            *site.getsitepackages(),
            "/proc",
            "/sys",
            "/dev/null",
            "/usr/lib",
            "/usr/share",
            "/lib",
            "/etc/ld.so.cache",
            "/etc/localtime",
        )
    }
)

_TESTS = os.path.realpath(Path(__file__).parent)
"""Where tracebacks are read from, by libraries that look at their callers."""


class Audit:
    """Notes forbidden events while it listens."""

    def __init__(self, *, package: Path) -> None:
        self._package = os.path.realpath(package)
        self._allowed: tuple[str, ...] = ()
        self._listening = False
        self.events: list[str] = []
        sys.addaudithook(self._hear)

    @contextmanager
    def listening(self, allowed: list[str]) -> Iterator[list[str]]:
        """Note what happens in the block; files under `allowed` may be opened for reading."""
        self.events = []
        self._allowed = tuple(os.path.realpath(path) for path in allowed)
        self._listening = True
        try:
            yield self.events
        finally:
            self._listening = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._listening:
            return
        if event.startswith(_REFUSED):
            self.events.append(f"{event} {str(arguments)[:200]}")
            message = f"{event} is not allowed while loading"
            raise PermissionError(message)
        if event == "import" and str(arguments[0]).startswith(EVIL_MODULE):
            self.events.append(f"import {arguments[0]}")
        if event == "open":
            self._hear_open(*arguments)

    def _hear_open(self, path: object, _mode: object, flags: int) -> None:
        if not isinstance(path, (str, bytes)):
            return  # a descriptor that is open already
        name = os.fsdecode(path)
        if flags & getattr(os, "O_NOFOLLOW", 0):
            place = str(Path(os.path.realpath(Path(name).parent)) / Path(name).name)
        else:
            place = os.path.realpath(name)
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        own_cache = os.environ.get("PEFTUNE_CACHE", tempfile.gettempdir())
        if _within(place, (os.path.realpath(own_cache),)):
            return
        if writes and not _within(place, ("/dev/null",)):
            self.events.append(f"open for writing {place}")
        elif not (
            _within(place, (*self._allowed, *_LIBRARIES, self._package, _TESTS))
            or _tells_of_a_package(place)
        ):
            self.events.append(f"open {place}")


def _tells_of_a_package(place: str) -> bool:
    """Say whether a file is an installed package's own, of one that lies where it is developed."""
    folder = Path(place).parent
    return folder.suffix in {".dist-info", ".egg-info"} and str(folder.parent) in sys.path


def _within(place: str, folders: tuple[str, ...]) -> bool:
    return any(place == folder or place.startswith(folder + os.sep) for folder in folders)
