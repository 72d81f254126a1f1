"""Save an artifact and be killed at every file operation of it; run as a script, prints JSON.

One process prepares the models; for every operation it forks a child that saves and gets SIGKILL
right before that operation (or, of a write, after half of it). What stands in the target's place
afterwards is compared byte by byte with the old artifact and the new one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import peftune
from peftune.files import publishing
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import prepare_model
from peftune.strategies import STRATEGIES

EVENTS = {
    "open",
    "os.chmod",
    "os.mkdir",
    "os.rename",
    "shutil.rmtree",
    "tempfile.mkdtemp",
    "tempfile.mkstemp",
}
"""Python's own audit events of operations that can change a folder."""

REMOVALS = {"os.remove", "os.rmdir"}
"""Those that name a file by its open folder, so that its place is not told."""


class Reaper:
    """Count the file operations below a folder; at the chosen one, the process is killed."""

    def __init__(self, folder: Path, at: int | None) -> None:
        self.folder = str(folder)
        self.at = at
        self.seen: list[str] = []
        self.active = True

    def step(self, name: str, first: Callable[[], Any] = lambda: None) -> None:
        """Count one operation; if it is the chosen one, do a part of it and die."""
        if not self.active:
            return
        if len(self.seen) == self.at:
            first()
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(name)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count what Python tells of itself, if it is about the folder."""
        if event in REMOVALS:
            self.step(event)
        elif event in EVENTS and any(self.folder in str(argument) for argument in arguments):
            if event == "open" and not _writes(arguments):
                return
            self.step(event)


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def watch(reaper: Reaper) -> None:
    """Put the reaper before every operation that Python has no event for."""
    sys.addaudithook(reaper.audit)
    real_fsync, real_write = os.fsync, os.write
    real_exchange = vars(publishing)["exchange"]

    def fsync(handle: int) -> None:
        reaper.step("fsync")
        real_fsync(handle)

    def write(handle: int, content: Any) -> int:  # noqa: ANN401 - any bytes
        reaper.step("write", lambda: real_write(handle, bytes(content)[: len(content) // 2]))
        return real_write(handle, content)

    def exchange(first: Path, second: Path) -> bool:
        reaper.step("exchange")
        done: bool = real_exchange(first, second)
        reaper.step("exchanged")
        return done

    vars(os).update(fsync=fsync, write=write)
    vars(publishing).update(exchange=exchange)


def in_child(model: nn.Module, target: Path, at: int | None) -> tuple[list[str], bool]:
    """Save in a fork of this process, to be killed at an operation; return what it got to do."""
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        reaper = Reaper(target.parent, at)
        watch(reaper)
        peftune.save(model, target)
        reaper.active = False
        with open(written, "w") as file:  # noqa: PTH123 - a pipe, no path
            json.dump(reaper.seen, file)
        os._exit(0)
    os.close(written)
    with open(read) as file:  # noqa: PTH123 - a pipe, no path
        told = file.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return (json.loads(told) if told else []), killed


def contents(folder: Path) -> dict[str, bytes]:
    """Read all the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def results_of(name: str, base: Path, work: Path, *, replacing: bool) -> dict[str, Any]:
    """Kill a save of one strategy at each of its operations, and judge what each time is left."""
    model = prepare_model(
        str(base), STRATEGIES.get(name)(), labels=("a", "b"), max_length=32, use_cpu=True
    )
    old, new = work / "old", work / "new"
    peftune.save(model, old)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.01)
    peftune.save(model, new)
    before, after = contents(old), contents(new)
    target = work / "place" / "artifact"

    def begin() -> None:
        shutil.rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir(parents=True)
        if replacing:
            shutil.copytree(old, target)

    begin()
    operations, _ = in_child(model, target, None)
    faults = []
    for at, operation in enumerate(operations):
        begin()
        _, killed = in_child(model, target, at)
        found = contents(target) if target.exists() else None
        allowed = [before, after] if replacing else [None, after]
        if not killed or found not in allowed:
            faults.append(f"{at} {operation}: {'half' if killed else 'not killed'}")
            continue
        peftune.save(model, target)
        left = sorted(path.name for path in target.parent.iterdir())
        if contents(target) != after or left != ["artifact"]:
            faults.append(f"{at} {operation}: the next save left {left}")
    return {"strategy": name, "replacing": replacing, "operations": operations, "faults": faults}


def main() -> None:
    """Read a base, a folder to work in and a strategy; print the results of it."""
    base, work, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)  # a fork has no other thread
    found = [
        results_of(name, base, work / str(replacing), replacing=replacing)
        for replacing in (False, True)
    ]
    print(json.dumps(found))  # noqa: T201 - a script


if __name__ == "__main__":
    main()
