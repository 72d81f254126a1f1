"""What a run leaves that nothing disturbed, and how that of another one differs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from warm_runs import TEAR, Ended, Fault, Operation, WarmRuns, write_recipe

TIMES = {
    "train_seconds",
    "train_examples_per_second",
    "latency_median_ms",
    "latency_p95_ms",
    "peak_memory_bytes",
    "reason",
}
"""Keys of the report's `cost` that no two runs share, and the word on seconds after a resume."""

PAGES = ("report.html", "report.md", "report.csv")


class Undisturbed:
    """One recipe: the run that nothing disturbed, and others that are and are repeated."""

    def __init__(self, runs: WarmRuns, work: Path, strategy: str, ending: str) -> None:
        self.runs = runs
        self.recipe = write_recipe(work, strategy, ending)
        self.place = work / f"{strategy}-{ending}"
        self.folder = self.place / "run"
        self.clear()
        undisturbed = self.run()
        # A run that forgot more than its budget is kept, and fails its gate.
        self.code = 2 if "over the budget" in undisturbed.errors else 0
        assert undisturbed.code == self.code, undisturbed.errors
        self.operations = undisturbed.operations
        self.expected = contents(self.folder)
        written = [index for index, one in enumerate(self.operations) if _is_report(one)]
        self.written = written[-1]
        self.clear()

    def clear(self) -> None:
        """Begin anew, without a cache too."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def run(self, fault: Fault | None = None) -> Ended:
        """Run the recipe."""
        return self.runs(
            *("run", self.recipe, "--output", self.folder),
            folder=self.place,
            fault=fault or Fault(),
            environment={"PEFTUNE_CACHE": str(self.place / "cache")},
        )

    def named(self, kill: Fault) -> str:
        """Name an operation."""
        operation, size, path = self.operations[kill.at]
        return f"{kill.at} {'amid' if kill.action == TEAR else 'before'} {operation} {size} {path}"

    def last_whole(self, at: int) -> str | None:
        """Return the newest checkpoint that was whole before an operation."""
        finished = [
            found.group(1)
            for operation, _, path in self.operations[:at]
            if operation == "rename" and (found := re.search(r"/(checkpoint-\d+)/[^/]+$", path))
        ]
        return finished[-1] if finished else None

    def is_finished(self) -> bool:
        """Say whether the report of the run tells of its end."""
        report = self.folder / "report.json"
        return report.is_file() and json.loads(report.read_bytes())["status"] == "complete"

    def lost(self, fault: Fault) -> Iterator[str]:
        """List what was finished before a fault and is not there after it."""
        found, before = contents(self.folder), self.operations[: fault.at]
        saved = {
            path.removeprefix("/run/") for operation, _, path in before if operation == "rename"
        }
        kept = f"checkpoints/{self.last_whole(fault.at)}"
        for path, content in self.expected.items():
            if path == "report.json":
                there = self.is_finished()
            elif path in PAGES:  # which tell of seconds
                there = path in found
            else:
                there = found.get(path) == content
            if path.partition("/")[0] in saved and not there:
                yield f"{path} was saved, and is not there"
            if path.startswith(f"{kept}/") and path not in found:
                yield f"{path} was written, and is not there"

    def faults_of_repetition(self, fault: Fault) -> Iterator[str]:
        """Repeat a run that a fault ended; list what is wrong.

        Pages are compared where the fault came after the report that they show.
        """
        kept, finished = self.last_whole(fault.at), self.is_finished()
        ended = self.run()
        if ended.code != self.code:
            yield f"repeated, it ended with {ended.code}: {ended.errors[-500:]}"
            return
        resumed = re.search(rf"resuming from {kept}\b", ended.errors)
        if kept is not None and not finished and resumed is None:
            yield f"{kept} was lost: {ended.errors}"
        yield from self.differences(pages=fault.at > self.written)

    def differences(self, *, pages: bool) -> Iterator[str]:
        """List what is not as in the run that nothing disturbed; pages are there, or whole too."""
        found, expected = contents(self.folder), dict(self.expected)
        for path in sorted({*found, *expected}):
            if path not in expected:
                yield f"{path} is left over"
            elif path not in found:
                yield f"{path} is missing"
            elif path == "report.json":
                yield from unlike(json.loads(found[path]), json.loads(expected[path]))
            elif (
                path not in PAGES and "checkpoints/" not in path and found[path] != expected[path]
            ):
                yield f"{path} differs"
        if pages:
            for page in PAGES:
                (self.folder / page).unlink(missing_ok=True)
            self.run()
            again = contents(self.folder)
            yield from (f"{page} is torn" for page in PAGES if found.get(page) != again[page])


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def unlike(found: Any, expected: Any, path: str = "report") -> Iterator[str]:  # noqa: ANN401 - any JSON
    """List where two reports differ, but for times and the order's hash, which a resume forgets."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted({*found, *expected}):
            if path == "report.cost" and key in TIMES:
                continue
            if path == "report.run" and key == "order_sha256" and found[key] is None:
                continue
            yield from unlike(found.get(key), expected.get(key), f"{path}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, pair in enumerate(zip(found, expected, strict=True)):
            yield from unlike(*pair, f"{path}[{number}]")
    elif found != expected:
        yield f"{path} is {found!r}, not {expected!r}"


def _is_report(operation: Operation) -> bool:
    return operation[0] == "rename" and operation[2].endswith("/run/report.json")
