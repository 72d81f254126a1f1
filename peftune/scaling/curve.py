"""Train on growing subsets of the training rows, and say what doubling them would give."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peftune.data.task import Task, load_task
from peftune.diagnosis import warmup_ahead
from peftune.errors import UsageError
from peftune.files.lock import owned
from peftune.files.paths import given_path
from peftune.files.publish import make_writable, sweep
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.recipe.task import refuse_label_mismatch
from peftune.runs.folder import write_json
from peftune.runs.folds import refuse_folds
from peftune.scaling.plot import plot_learning_curve
from peftune.scaling.power_law import fit_power_law, gain_interval
from peftune.scaling.results import LearningCurve, Size, answer_of
from peftune.scaling.subsets import nested_order, sizes_of
from peftune.scaling.training import Trained, trained_on
from peftune.seeds import stream_seed
from peftune.stats.crossed import crossed_share, crossed_share_change

logger = logging.getLogger(__name__)

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
RESULT = "learning-curve.json"
PLOT = "learning-curve.svg"


@working("measuring the learning curve")
def learning_curve(
    recipe: str | Path | Recipe,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = (0,),
    overrides: Overrides = (),
    output: str | Path | None = None,
) -> LearningCurve:
    """Train the recipe's strategy on nested subsets of train, and score the validation rows.

    No test row is read. Every subset is learned as the recipe says, for as many epochs; so fewer
    rows are fewer steps, unless `training.max_steps` is set.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        fractions: shares of the training rows; at least four that differ.
        seeds: seeds of the trainings; several tell how far trainings differ by themselves.
        overrides: `key=value` assignments, such as `strategy={name: lora, r: 4}`.
        output: folder, in the place of the recipe's `output_dir` with `-learning-curve`. What is
            finished in it is not done again.

    Returns:
        The curve, as written to `learning-curve.json`; `learning-curve.svg` shows it.

    Raises:
        UsageError: the task is not single-label, the recipe has stages, or an argument is wrong.
        DataError: the rows cannot be used.
        OutputFolderError: the folder holds the curve of something else.
    """
    chosen = resolve(read_recipe(recipe, overrides))
    _check(chosen, seeds)
    folder = (
        given_path(output, "output")
        if output is not None
        else Path(f"{chosen.output_dir}-learning-curve")
    )
    task = load_task(chosen.data, chosen.task, with_test=False)
    refuse_label_mismatch(chosen.task, task.labels, chosen.training)
    sizes = sizes_of(len(task.train), fractions, labels=len(set(task.train.labels)))
    with owned(folder):
        make_writable(folder)
        sweep(folder)
        trained = _trained(chosen, task, sizes, seeds, folder)
        curve = _curve(chosen, sizes, trained, seeds, folder)
        write_json(curve.as_json(), folder / RESULT)
        plot_learning_curve(curve, folder / PLOT)
    return curve


def _check(recipe: Recipe, seeds: Sequence[int]) -> None:
    if recipe.task != "single-label":
        message = f"A learning curve counts wrong labels; it needs task: single-label (the recipe has {recipe.task})."
        raise UsageError(message)
    if recipe.stages:
        message = "A learning curve is one of the recipe's own task. Run its stages first, and begin as their artifact: model.init_from in the place of stages."
        raise UsageError(message)
    refuse_folds(recipe, "A learning curve")
    if not seeds or len(set(seeds)) < len(seeds):
        message = f"A learning curve needs seeds, each once (got {', '.join(map(str, seeds)) or 'none'})."
        raise UsageError(message)


def _trained(
    recipe: Recipe, task: Task, sizes: Sequence[int], seeds: Sequence[int], folder: Path
) -> list[list[Trained]]:
    """Train every size with every seed, small sizes first."""
    order = nested_order(task.train, seed=recipe.data.seed)
    for finding in {one: None for size in sizes for one in warmup_ahead(recipe.training, size)}:
        logger.warning("%s: %s %s", finding.severity, finding.message, finding.advice)
    found = []
    for size in sizes:
        subset = dataclasses.replace(task, train=task.train.take(sorted(order[:size])))
        of_size = []
        for seed in seeds:
            logger.info("training on %d of %d rows, seed %d", size, len(task.train), seed)
            training = recipe.training.model_copy(update={"seed": seed})
            seeded = recipe.model_copy(update={"training": training})
            of_size.append(trained_on(seeded, subset, folder / f"n-{size:06d}-seed{seed}"))
        found.append(of_size)
    return found


def _curve(
    recipe: Recipe,
    rows: Sequence[int],
    trained: Sequence[Sequence[Trained]],
    seeds: Sequence[int],
    folder: Path,
) -> LearningCurve:
    wrong = np.array([[one.wrong for one in of_size] for of_size in trained])
    law = fit_power_law(rows, wrong.mean(axis=(1, 2)).tolist())
    interval = gain_interval(rows, wrong, seed=stream_seed(recipe.data.seed, "bootstrap"))
    worth, answer = answer_of(law, interval, rows=rows[-1], seeds=len(seeds))
    return LearningCurve(
        folder=folder,
        name=recipe.name,
        strategy=recipe.strategy.name,
        validation_rows=wrong.shape[-1],
        seeds=tuple(seeds),
        sizes=[
            _size(count, wrong[index], wrong[index - 1] if index else None, trained[index])
            for index, count in enumerate(rows)
        ],
        law=law,
        gain_ci95=interval,
        worth=worth,
        answer=answer,
    )


def _size(
    rows: int,
    wrong: NDArray[np.float64],
    before: NDArray[np.float64] | None,
    trained: Sequence[Trained],
) -> Size:
    """Sum one size up from its wrong rows, (seeds, rows), and those of the size before."""
    error = crossed_share(wrong)
    gain = None if before is None else crossed_share_change(before - wrong)
    seconds = [one.seconds for one in trained if one.seconds is not None]
    return Size(
        rows=rows,
        errors=wrong.mean(axis=1).tolist(),
        error=error.value,
        ci95=error.ci95,
        gain=None if gain is None else gain.value,
        gain_ci95=None if gain is None else gain.ci95,
        seconds=sum(seconds) if len(seconds) == len(trained) else None,
    )
