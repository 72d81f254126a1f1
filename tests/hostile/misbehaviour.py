"""What no load may do, done on purpose: the control of the audit, the clock and the scales."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from hostile.payloads import EVIL_MODULE, pickled, python_source

KINDS = (
    "looks a name up",
    "connects",
    "starts a process",
    "runs a shell",
    "forks",
    "unpickles",
    "imports",
    "reads elsewhere",
    "follows a link",
    "writes",
)


def misbehave(kind: str, folder: Path) -> str:
    """Do one of them, for a folder that may be read."""
    if kind == "looks a name up":
        socket.getaddrinfo("localhost", 80)
    elif kind == "connects":
        with socket.socket() as one:
            one.connect(("127.0.0.1", 9))
    elif kind == "starts a process":
        subprocess.run([sys.executable, "-V"], check=False)
    elif kind == "runs a shell":
        os.system("true")  # noqa: S605, S607 - the control
    elif kind == "forks":
        os.fork()
    elif kind == "unpickles":
        pickle.loads(pickled(folder / "executed"))  # noqa: S301 - the control
    elif kind == "imports":
        (folder / f"{EVIL_MODULE}.py").write_bytes(python_source(folder / "executed"))
        sys.path.insert(0, str(folder))
        import_module(EVIL_MODULE)
    elif kind == "reads elsewhere":
        Path("/etc/passwd").read_bytes()
    elif kind == "follows a link":
        (folder / "link").unlink(missing_ok=True)
        (folder / "link").symlink_to("/etc/passwd")
        (folder / "link").read_bytes()
    elif kind == "writes":
        (folder / "written").write_bytes(b"")
    elif kind == "eats":
        return str(len(bytearray(300 * 2**20)))
    elif kind == "sleeps":
        time.sleep(3600)
    elif kind == "dies":
        os._exit(7)
    return kind
