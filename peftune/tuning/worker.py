"""Which process is at a trial, and whether it lives."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial

WORKER = "worker"
"""Attribute of a trial: the process that began it."""

_PROCESS = uuid.uuid4().hex


def this_process() -> dict[str, Any]:
    """Name this process, so that another one can tell whether it lives; no host is named."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:16]
    return {"machine": machine, "pid": os.getpid(), "process": _PROCESS}


def may_live(trial: FrozenTrial, *, silent: float) -> bool:
    """Say whether the process of a running trial may be alive.

    Where it cannot be told, as of a process on another machine, the answer is yes, and the
    heartbeat of the storage decides.

    Args:
        trial: a running trial.
        silent: seconds that a trial may take to name its process.
    """
    worker = trial.user_attrs.get(WORKER)
    if worker is None:
        begun = trial.datetime_start or datetime.now()  # noqa: DTZ005 - as optuna stores it
        return (datetime.now() - begun).total_seconds() < silent  # noqa: DTZ005 - the same
    if worker["machine"] != this_process()["machine"] or os.name != "posix":
        return True
    if worker["pid"] == os.getpid():  # of this process, or of one that had its number
        return bool(worker["process"] == _PROCESS)
    try:
        os.kill(worker["pid"], 0)  # asks whether there is such a process; nothing is sent
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
