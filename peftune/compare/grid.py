"""The grid of runs: strategies times seeds, of which only what is missing is run."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.errors import PeftuneError, UsageError
from peftune.recipe import Recipe, read_recipe, resolve, with_strategy, write_recipe
from peftune.runs import Run, read_run
from peftune.runs.folder import claim_folder, write_json

logger = logging.getLogger(__name__)

COMPARISON = "comparison.json"
_LOG = "run.log"


@dataclass(frozen=True, slots=True)
class Failure:
    """A run of the grid that did not finish."""

    strategy: str
    seed: int
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of several strategies and seeds on the same rows.

    Args:
        folder: where the run folders lie.
        runs: the finished runs, by strategy and then by seed, as asked for.
        failures: the runs that did not finish.
    """

    folder: Path
    runs: Sequence[Run]
    failures: Sequence[Failure]

    def as_json(self) -> dict[str, Any]:
        """Return the content of `comparison.json`; `folder` is relative to the comparison's."""
        return {
            "runs": [{"folder": run.folder.name, **run.as_json()} for run in self.runs],
            "failures": [
                {"strategy": f.strategy, "seed": f.seed, "message": f.message}
                for f in self.failures
            ],
        }


def compare(
    recipe: str | Path,
    *,
    strategies: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
) -> Comparison:
    """Run what is missing of the grid, and read all of it.

    Every run has a process of its own, so that none inherits memory, random state or a crash from
    another. A finished run of the same resolved recipe is read, an unfinished one resumed; a
    failed one is told and does not stop the others.

    Args:
        recipe: path of a recipe, or name of a shipped one.
        strategies: strategy names.
        seeds: seeds of the training; the rows are the same for all.
        overrides: `key=value` assignments for all runs.
        output: folder for the runs; otherwise the recipe's `output_dir` with `-compare`.

    Raises:
        PeftuneError: the recipe or a strategy name is wrong, or a folder holds another run.
    """
    chosen = read_recipe(recipe, overrides)
    folder = Path(output) if output is not None else Path(f"{chosen.output_dir}-compare")
    cells = [_cell(chosen, strategy, seed, folder) for strategy in strategies for seed in seeds]
    for cell, path in cells:
        claim_folder(path, cell)
    runs: list[Run] = []
    failures: list[Failure] = []
    for number, (cell, path) in enumerate(cells, start=1):
        outcome = _run_cell(cell, path, f"{number}/{len(cells)}")
        if isinstance(outcome, Run):
            runs.append(outcome)
        else:
            failures.append(outcome)
    _refuse_different_rows(runs)
    comparison = Comparison(folder, runs, failures)
    write_json(comparison.as_json(), folder / COMPARISON)
    return comparison


def _cell(recipe: Recipe, strategy: str, seed: int, folder: Path) -> tuple[Recipe, Path]:
    with_own_strategy = resolve(with_strategy(recipe, strategy))
    path = folder / f"{strategy}-seed{seed}"
    training = with_own_strategy.training.model_copy(update={"seed": seed})
    return with_own_strategy.model_copy(
        update={"training": training, "output_dir": str(path)}
    ), path


def _run_cell(recipe: Recipe, folder: Path, place: str) -> Run | Failure:
    finished = claim_folder(folder, recipe)
    name = f"[{place}] {recipe.strategy.name}, seed {recipe.training.seed}"
    if finished is not None:
        logger.info("%s: finished before", name)
        return finished
    logger.info("%s: running", name)
    started = time.perf_counter()
    write_recipe(recipe, folder / "recipe.yaml")
    command = [
        sys.executable,
        "-m",
        "peftune.cli",
        "run",
        str(folder / "recipe.yaml"),
        "--output",
        str(folder),
    ]
    with (folder / _LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command, stdout=log, stderr=None if sys.stderr.isatty() else log
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    try:
        result = read_run(folder)
    except PeftuneError:
        message = _last_line(folder / _LOG) or f"the process ended with code {code}"
        logger.warning("%s: failed: %s", name, message)
        return Failure(recipe.strategy.name, recipe.training.seed, message)
    logger.info(
        "%s: accuracy %.3f in %.0f s",
        name,
        result.learning.accuracy,
        time.perf_counter() - started,
    )
    return result


def _last_line(log: Path) -> str:
    lines = [
        line
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1].removeprefix("peftune: ") if lines else ""


def _refuse_different_rows(runs: Sequence[Run]) -> None:
    """All runs saw the same rows in the same splits; anything else is no comparison."""
    if len({run.run.data_fingerprint for run in runs}) > 1:
        message = "The runs of this comparison did not see the same rows: the data changed between them. Choose another --output and run all of them again."
        raise UsageError(message)
