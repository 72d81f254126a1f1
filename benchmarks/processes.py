"""Start a fresh process for a piece of work, and read what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
"""Folder that holds the packages `benchmarks` and `peftune`."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Where processes are started, and with what environment.

    Args:
        work: folder for what they exchange, their logs, and peftune's cache.
        threads: of each process; 0 leaves the choice to the libraries.
        timeout: seconds after which a piece of work is given up.
    """

    work: Path
    threads: int = 0
    timeout: float = 1800.0

    def run(self, kind: str, label: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Run `benchmarks.jobs.<kind>` in a fresh process; a failure is a result with its reason.

        Args:
            kind: module of `benchmarks.jobs`.
            label: names the files of this piece of work.
            arguments: what its `run` takes; JSON.
        """
        folder = self.work / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        job, result = folder / f"{label}.job.json", folder / f"{label}.result.json"
        result.unlink(missing_ok=True)
        job.write_text(json.dumps({"kind": kind, "arguments": arguments}), encoding="utf-8")
        started = time.perf_counter()
        ended = self._start(["benchmarks.worker", str(job), str(result)], folder / f"{label}.log")
        seconds = round(time.perf_counter() - started, 2)
        if not result.is_file():
            return {"status": "failed", "reason": ended, "process_seconds": seconds}
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found | {"process_seconds": seconds}

    def environment(self) -> dict[str, str]:
        """Return the environment of every process: no network, a cache and threads of its own."""
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PEFTUNE_CACHE": str((self.work / "peftune-cache").resolve()),
            **threads,
        }

    def _start(self, module: list[str], log: Path) -> str:
        """Run a module to its end and say how it ended, should it leave no result."""
        with log.open("w", encoding="utf-8") as output:
            try:
                ended = subprocess.run(  # noqa: S603 - our own module
                    [sys.executable, "-m", *module],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self.environment(),
                    timeout=self.timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return f"given up after {self.timeout:.0f} s"
        if ended.returncode < 0:
            return f"ended by signal {-ended.returncode}, which is 9 where memory ran out; see {log.name}"
        return f"ended with code {ended.returncode}; see {log.name}"
