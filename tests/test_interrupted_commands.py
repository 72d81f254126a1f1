"""A signal at any moment: the right exit code, one line, no process left, and all that had finished kept."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from undisturbed import TIMES, contents, unlike
from warm_runs import Ended, Signal, WarmRuns, warm_runs, why_not, write_recipe, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

TUNE = (
    "tune: {trials: 3, space: {training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}}\n"
)

SIGNALS = {
    "SIGTERM": (signal.SIGTERM,),
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGHUP": (signal.SIGHUP,),
}
MOMENTS = {"run": 8, "compare": 2, "tune": 5}
"""Of each signal: 60 together. A comparison starts processes that import everything, which takes longest."""

LINES = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGHUP: "hung up"}
KEPT = "what had finished is kept, and the same command goes on from there."

EXACT = ("adapter", "documents", "model", "peftune.json", "predictions", "README", "texts")
"""What the names of the files begin with that are the same byte for byte."""

ENDS_WITHIN = 5
"""Seconds in which the processes that a command started are gone after it."""

MARK = "PEFTUNE_TEST_COMMAND"
"""A variable by which the processes of one command are found; they inherit it."""


@dataclass(frozen=True)
class Command:
    """A command line, and what it leaves where nothing disturbs it."""

    arguments: tuple[str, ...]
    place: Path
    seconds: float
    expected: dict[str, bytes]

    def run(self, runs: WarmRuns, *signals: Signal, mark: str = "") -> Ended:
        """Run it, and send the signals."""
        return runs(
            *self.arguments,
            folder=self.place,
            signals=signals,
            environment={"PEFTUNE_CACHE": str(self.place / "cache"), MARK: mark},
        )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what the commands read."""
    folder = tmp_path_factory.mktemp("interrupted").resolve()
    write_rows(folder)
    return folder


@pytest.fixture(scope="module")
def runs(work: Path) -> Iterator[WarmRuns]:
    """Give the process whose forks run."""
    with warm_runs(work, [write_recipe(work, "head-only", "epochs")]) as started:
        yield started


@pytest.fixture(scope="module", params=MOMENTS)
def command(request: pytest.FixtureRequest, runs: WarmRuns, work: Path) -> Command:
    """Run each command once, undisturbed."""
    verb = request.param
    recipe = write_recipe(work, "head-only", "epochs")
    if verb == "tune":
        own = recipe.with_name("tune.yaml")
        own.write_text(recipe.read_text(encoding="utf-8") + TUNE, encoding="utf-8")
        recipe = own
    place = work / verb
    place.mkdir()
    more = ("--strategies", "head-only,full", "--jobs", "2") if verb == "compare" else ()
    arguments = (verb, str(recipe), "--output", str(place / "out"), *more)
    before = Command(arguments, place, 0.0, {})
    ended = before.run(runs)
    assert ended.code == 0, ended.errors
    return Command(arguments, place, ended.seconds, contents(place / "out"))


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_at_any_moment_ends_a_command_and_loses_nothing(
    command: Command, name: str, runs: WarmRuns
) -> None:
    """Exit code, one line, no process, and the repeated command ends as the undisturbed one."""
    verb = command.arguments[0]
    drawn = random.Random(f"{verb} {name}")  # noqa: S311 - the same at every time
    faults = []
    for _ in range(MOMENTS[verb]):
        share, gap = drawn.uniform(0.02, 0.95), drawn.uniform(0, 0.3)
        faults += [
            f"{verb}, {name} at {share:.3f}, {gap:.3f}: {fault}"
            for fault in faults_after(command, runs, SIGNALS[name], share, gap)
        ]

    assert not faults, "\n".join(faults)


def faults_after(
    command: Command, runs: WarmRuns, numbers: tuple[signal.Signals, ...], share: float, gap: float
) -> Iterator[str]:
    """Interrupt a command at a share of its time, and repeat it; say what is wrong."""
    mark = uuid.uuid4().hex
    ended = interrupted(command, runs, numbers, share, gap, mark)
    yield from faults_of_end(ended, numbers[0])
    for _ in range(10 * ENDS_WITHIN):
        if not (left := marked(mark)):
            break
        time.sleep(0.1)
    for process in left:
        yield f"a process is left: {process}"
    finished = finished_runs(command.place / "out")
    ended = command.run(runs)
    if ended.code != 0:
        yield f"repeated, it ended with {ended.code}: {ended.errors[-500:]}"
        return
    found = contents(command.place / "out")
    for folder, files in finished.items():
        for path, content in files.items():
            if found.get(path) != content:
                yield f"{path} of the finished run {folder} did not stay"
    yield from differences(found, command.expected)


def interrupted(  # noqa: PLR0917 - one after the other
    command: Command,
    runs: WarmRuns,
    numbers: tuple[signal.Signals, ...],
    share: float,
    gap: float,
    mark: str,
) -> Ended:
    """Interrupt a command before its end, earlier where it ended first."""
    while True:
        shutil.rmtree(command.place)
        command.place.mkdir()
        first, *others = numbers
        signals = [Signal(share * command.seconds, first), *(Signal(gap, one) for one in others)]
        ended = command.run(runs, *signals, mark=mark)
        if ended.code != 0:
            return ended
        share /= 2


def faults_of_end(ended: Ended, number: signal.Signals) -> Iterator[str]:
    """Say what is wrong with how a command ended."""
    if ended.code == -number and not ended.operations:
        return  # before it could listen
    if ended.code != 128 + number:
        yield f"it ended with {ended.code}: {ended.errors[-500:]}"
    said = f"peftune: {LINES[number]}; {KEPT}"
    if ended.errors.count("; what had finished is kept") != 1 or said not in ended.errors:
        yield f"it said: {ended.errors[-500:]}"
    for word in ("Traceback", "Error", "Exception ignored"):
        if word in ended.errors:
            yield f"{word}: {ended.errors[-1000:]}"


def marked(mark: str) -> list[str]:
    """List the command lines of the processes with a mark in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended meanwhile
    return found


def finished_runs(output: Path) -> dict[str, dict[str, bytes]]:
    """Read the folders of the runs that are finished, but for logs and pages."""
    found = {}
    for report in output.glob("*/report.json"):
        if json.loads(report.read_bytes())["status"] == "complete":
            folder = report.parent
            found[folder.name] = {
                f"{folder.name}/{path}": content
                for path, content in contents(folder).items()
                if path != "run.log"
            }
    return found


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> Iterator[str]:
    """List what is not as where nothing disturbed: files, artifacts, predictions and reports."""
    for path in sorted({*found, *expected}):
        name = path.rpartition("/")[2]
        if path not in expected:
            yield f"{path} is left over"
        elif path not in found:
            yield f"{path} is missing"
        elif name == "report.json":
            yield from unlike(json.loads(found[path]), json.loads(expected[path]))
        elif name == "tuning.json":
            if trials(found[path]) != trials(expected[path]):
                yield f"{path} is {trials(found[path])}, not {trials(expected[path])}"
        elif (
            "checkpoints/" not in path and name.startswith(EXACT) and found[path] != expected[path]
        ):
            yield f"{path} differs"


def trials(content: bytes) -> object:
    """Read what a search found, without its seconds."""
    return json.loads(
        content,
        object_hook=lambda one: {
            key: value for key, value in one.items() if key not in TIMES | {"seconds"}
        },
    )
