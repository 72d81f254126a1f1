"""What no load may do, done on purpose: the control of the audit, the clock and the scales."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from hostile.payloads import EVIL_MODULE, pickled, python_source


def _connect(_: Path) -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", 9))


def _import(folder: Path) -> None:
    (folder / f"{EVIL_MODULE}.py").write_bytes(python_source(folder / "executed"))
    sys.path.insert(0, str(folder))
    import_module(EVIL_MODULE)


def _follow(folder: Path) -> None:
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "link").read_bytes()


FORBIDDEN: dict[str, Callable[[Path], object]] = {
    "looks a name up": lambda _: socket.getaddrinfo("localhost", 80),
    "connects": _connect,
    "starts a process": lambda _: subprocess.run([sys.executable, "-V"], check=False),
    "runs a shell": lambda _: os.system("true"),  # noqa: S605, S607 - the control
    "forks": lambda _: os.fork(),
    "unpickles": lambda folder: pickle.loads(pickled(folder / "executed")),  # noqa: S301 - the control
    "imports": _import,
    "reads elsewhere": lambda _: Path("/etc/passwd").read_bytes(),
    "follows a link": _follow,
    "writes": lambda folder: (folder / "written").write_bytes(b""),
}
"""What the audit must hear."""

_COSTLY: dict[str, Callable[[Path], object]] = {
    "eats": lambda _: bytearray(300 * 2**20),
    "sleeps": lambda _: time.sleep(3600),
    "dies": lambda _: os._exit(7),
}


def misbehave(kind: str, folder: Path) -> str:
    """Do one of them, for a folder that may be read."""
    {**FORBIDDEN, **_COSTLY}[kind](folder)
    return kind
