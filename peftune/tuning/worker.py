"""Which process is at a trial, and whether it lives."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from collections.abc import Mapping
from typing import Any

WORKER = "worker"
"""Attribute of a trial: the process that began it; of a study, with an id, each that took part."""

_PROCESS = uuid.uuid4().hex


def this_process() -> dict[str, Any]:
    """Name this process, so that another one can tell whether it lives; no host is named."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:16]
    return {"machine": machine, "pid": os.getpid(), "process": _PROCESS}


def is_this_process(worker: Mapping[str, Any]) -> bool:
    """Say whether a name is that of this process."""
    return bool(worker["process"] == _PROCESS)


def may_live(worker: Mapping[str, Any]) -> bool:
    """Say whether a process may be alive.

    Where it cannot be told, as of a process on another machine, the answer is yes, and the
    heartbeat of the storage decides.
    """
    if worker["machine"] != this_process()["machine"] or os.name != "posix":
        return True
    if worker["pid"] == os.getpid():  # this process, or one that had its number
        return is_this_process(worker)
    try:
        os.kill(worker["pid"], 0)  # asks whether there is such a process; nothing is sent
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
