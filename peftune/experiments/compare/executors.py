"""Run the recipes of a comparison, several at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from peftune.experiments import Run
from peftune.experiments.run_folder import RECIPE, finished_run, reason_of
from peftune.processes import PARENT
from peftune.progress import stage
from peftune.recipe import Recipe

logger = logging.getLogger(__name__)

_LOG = "run.log"
_GRACE_SECONDS = 3.0
"""Time that a run has to end by itself, before it is killed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A run of the comparison that did not finish."""

    strategy: str
    seed: int
    message: str


class Jobs:
    """Processes that run recipes, of which none outlives this one.

    Args:
        count: how many run at once.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self, recipes: Sequence[Recipe], finished: Sequence[Run | None]
    ) -> list[Run | Failure]:
        """Run every recipe that is not finished.

        Args:
            recipes: resolved recipes, each with a folder that is claimed.
            finished: the run of each recipe that was finished before, or None.

        Returns:
            A run or a failure for each recipe, in their order.
        """
        places = [f"{number}/{len(recipes)}" for number in range(1, len(recipes) + 1)]
        # One child at a time draws its own bars on the terminal.
        several = self._count > 1
        with (
            stage("training and measuring", unit="runs", total=len(recipes), bar=several) as entry,
            ThreadPoolExecutor(self._count) as pool,
        ):
            try:
                waiting = [
                    pool.submit(self._outcome, recipe, run, place)
                    for recipe, run, place in zip(recipes, finished, places, strict=True)
                ]
                for _ in as_completed(waiting):
                    entry.advance()
                return [outcome.result() for outcome in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise

    def _outcome(self, recipe: Recipe, finished: Run | None, place: str) -> Run | Failure:
        name = f"[{place}] {recipe.strategy.name}, seed {recipe.training.seed}"
        if finished is not None:
            logger.info("%s: finished before", name)
            return finished
        logger.info("%s: running", name)
        started = time.perf_counter()
        folder = Path(recipe.output_dir)
        code = self._run_process(folder)
        if self._stopped:
            return Failure(recipe.strategy.name, recipe.training.seed, "stopped")
        result = finished_run(folder)
        if result is None:
            message = (
                _last_line(folder / _LOG)
                or reason_of(folder)
                or f"the process ended with code {code}"
            )
            logger.warning("%s: failed: %s", name, message)
            return Failure(recipe.strategy.name, recipe.training.seed, message)
        seconds = time.perf_counter() - started
        logger.info("%s: accuracy %.3f in %.0f s", name, result.learning.accuracy, seconds)
        return result

    def _run_process(self, folder: Path) -> int:
        """Run the recipe in a folder there."""
        recipe, log = str(folder / RECIPE), folder / _LOG
        command = [sys.executable, "-m", "peftune", "run", recipe, "--output", str(folder)]
        with log.open("w", encoding="utf-8") as output:
            bars = sys.stderr.isatty() and self._count == 1
            with self._lock:
                if self._stopped:
                    return 1
                process = subprocess.Popen(  # noqa: S603 - our own
                    command,
                    # Its end tells the child that this process has ended.
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=None if bars else output,
                    env=self._environment(),
                )
                self._running.add(process)
            code = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            with self._lock:
                self._running.discard(process)
            return code

    def _environment(self) -> dict[str, str]:
        """Share the cores among processes that run at once, where nothing else is said."""
        environment = {**os.environ, PARENT: str(os.getpid())}
        if self._count > 1:
            threads = max(1, (os.cpu_count() or 1) // self._count)
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        return environment

    def _stop(self) -> None:
        """End what runs, at last by force; a second call goes on from what had finished."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        ends = time.monotonic() + _GRACE_SECONDS
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, ends - time.monotonic()))
        for process in running:
            process.kill()  # does nothing to one that has ended


def _last_line(log: Path) -> str:
    lines = [
        line
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1].removeprefix("peftune: ") if lines else ""
