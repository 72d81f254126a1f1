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

from peftune.errors import UsageError
from peftune.recipe import Recipe, read_recipe, resolve, with_strategy
from peftune.runs import Run
from peftune.runs.folder import RECIPE, claim_folder, finished_run, reason_of, write_json
from peftune.runs.inputs import inputs_of, read_inputs
from peftune.seeds import MAX_SEED

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
        budget: the recipe's forgetting budget, in bits per byte.
    """

    folder: Path
    runs: Sequence[Run]
    failures: Sequence[Failure]
    budget: float | None = None

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
        PeftuneError: the recipe, a strategy or a seed is wrong, or a folder holds another run.
    """
    _refuse_bad_grid(strategies, seeds)
    chosen = read_recipe(recipe, overrides)
    folder = Path(output) if output is not None else Path(f"{chosen.output_dir}-compare")
    task, texts, inputs = read_inputs(chosen)
    cells = [_cell(chosen, strategy, seed, folder) for strategy in strategies for seed in seeds]
    finished = [
        claim_folder(
            Path(cell.output_dir),
            cell,
            inputs_of(
                cell,
                task,
                texts,
                base_fingerprint=inputs.base_fingerprint,
                texts_sha256=inputs.texts_sha256,
            ),
        )
        for cell in cells
    ]
    outcomes = [
        _outcome(cell, run, place=f"{number}/{len(cells)}")
        for number, (cell, run) in enumerate(zip(cells, finished, strict=True), start=1)
    ]
    comparison = Comparison(
        folder,
        runs=[outcome for outcome in outcomes if isinstance(outcome, Run)],
        failures=[outcome for outcome in outcomes if isinstance(outcome, Failure)],
        budget=chosen.forgetting.budget,
    )
    _refuse_different_rows(comparison.runs)
    write_json(comparison.as_json(), folder / COMPARISON)
    return comparison


def _refuse_bad_grid(strategies: Sequence[str], seeds: Sequence[int]) -> None:
    for kind, values in (("strategies", strategies), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            message = f"A comparison needs {kind}, each once (got {', '.join(map(str, values)) or 'none'})."
            raise UsageError(message)
    if outside := [seed for seed in seeds if not 0 <= seed <= MAX_SEED]:
        message = f"A seed is a whole number from 0 to {MAX_SEED} (got {outside[0]})."
        raise UsageError(message)


def _cell(recipe: Recipe, strategy: str, seed: int, folder: Path) -> Recipe:
    """Return the resolved recipe of one run of the grid."""
    cell = resolve(with_strategy(recipe, strategy))
    training = cell.training.model_copy(update={"seed": seed})
    path = cell.forgetting.path or cell.compare.path
    forgetting = cell.forgetting.model_copy(update={"path": path})
    place = str(folder / f"{strategy}-seed{seed}")
    return cell.model_copy(
        update={"training": training, "forgetting": forgetting, "output_dir": place}
    )


def _outcome(recipe: Recipe, finished: Run | None, *, place: str) -> Run | Failure:
    name = f"[{place}] {recipe.strategy.name}, seed {recipe.training.seed}"
    if finished is not None:
        logger.info("%s: finished before", name)
        return finished
    logger.info("%s: running", name)
    started = time.perf_counter()
    folder = Path(recipe.output_dir)
    code = _run_process(folder)
    result = finished_run(folder)
    if result is None:
        message = (
            _last_line(folder / _LOG) or reason_of(folder) or f"the process ended with code {code}"
        )
        logger.warning("%s: failed: %s", name, message)
        return Failure(recipe.strategy.name, recipe.training.seed, message)
    seconds = time.perf_counter() - started
    logger.info("%s: accuracy %.3f in %.0f s", name, result.learning.accuracy, seconds)
    return result


def _run_process(folder: Path) -> int:
    """Run the recipe in a folder there, in a process that ends with this one."""
    recipe, log = str(folder / RECIPE), folder / _LOG
    command = [sys.executable, "-m", "peftune.cli", "run", recipe, "--output", str(folder)]
    with log.open("w", encoding="utf-8") as output:
        errors = None if sys.stderr.isatty() else output
        process = subprocess.Popen(command, stdout=output, stderr=errors)  # noqa: S603 - our own
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


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
