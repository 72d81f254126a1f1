"""Train on growing subsets of the training rows, and estimate the gain of doubling them."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from peftune.adapters.initialization import Initialization, initialize
from peftune.data.rows import Rows
from peftune.data.task_data import Task, load_task
from peftune.errors import OutputFolderError, UsageError
from peftune.experiments.folds import refuse_folds
from peftune.experiments.learning_curve_results import LearningCurve, Size, answer_of
from peftune.experiments.path import prepared_logits
from peftune.experiments.plots import plot_learning_curve
from peftune.experiments.run_folder import CHECKPOINTS, write_json
from peftune.files.lock import owned
from peftune.files.publishing import make_writable, sweep
from peftune.files.reading import given_path
from peftune.findings.learning import warmup_ahead
from peftune.models.base_files import find_base
from peftune.models.fingerprint import base_fingerprint
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, recipe_sha256, resolve
from peftune.seeds import stream_seed
from peftune.stats.crossed import crossed_share, crossed_share_change
from peftune.stats.power_law import fit_power_law, gain_interval
from peftune.training.train import train

FEWEST_SIZES = 4
"""A power law has three parameters; fewer sizes would be met by any."""


def nested_order(rows: Rows, *, seed: int) -> list[int]:
    """Order rows so that the first n hold every label in about its share, whatever n is.

    The first row of every label comes before any second one.

    Args:
        rows: single-label rows.
        seed: decides which rows come first.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(rows.labels)
    place = np.zeros(len(labels))
    for label in sorted(set(rows.labels)):
        found = generator.permutation(np.flatnonzero(labels == label))
        place[found] = np.arange(len(found)) / len(found)
    return [int(row) for row in np.lexsort((generator.permutation(len(labels)), place))]


def sizes_of(count: int, fractions: Sequence[float], *, labels: int) -> list[int]:
    """Return the numbers of rows to learn from, ascending.

    Args:
        count: training rows.
        fractions: shares of them, above 0 and at most 1.
        labels: how many labels there are; each subset has all.

    Raises:
        UsageError: a fraction is none, or there are fewer than four different sizes.
    """
    if not fractions or min(fractions) <= 0 or max(fractions) > 1:
        message = f"fractions lie above 0 and up to 1 (got {', '.join(f'{one:g}' for one in fractions) or 'none'})."
        raise UsageError(message)
    sizes = sorted({max(labels, round(fraction * count)) for fraction in fractions})
    if len(sizes) < FEWEST_SIZES:
        message = f"A learning curve needs {FEWEST_SIZES} numbers of rows, for the law that is fitted has 3 parameters (got {', '.join(map(str, sizes))} of {count} rows). Give more fractions, or add rows."
        raise UsageError(message)
    return sizes


SIZE_RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of one training on a subset.

    Args:
        wrong: 1.0 for each validation row that got another label, (rows,).
        seconds: training time; None for one that was resumed.
    """

    wrong: NDArray[np.float64]
    seconds: float | None


def trained_on(recipe: Recipe, task: Task, folder: Path) -> Trained:
    """Train as a run would, without probes, and score the validation rows with the kept weights.

    Args:
        recipe: resolved, with the seed.
        task: the subset as train, and no test.
        folder: of this training; an unfinished one is resumed.

    Raises:
        OutputFolderError: the folder holds another training.
    """
    identity = _identity(recipe, task)
    found = _read(folder / SIZE_RESULT, identity)
    if found is not None:
        return found
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    folder.mkdir(parents=True, exist_ok=True)
    model = initialize(Initialization.of(recipe, task.labels, base_folder=folder / "base"))
    training = train(
        model,
        task,
        recipe.training.model_copy(update={"report_to": "none"}),
        checkpoints=folder / CHECKPOINTS,
        run_identity=identity,
        regularizers=recipe.forgetting.regularizers,
        score_train_sample=False,
    )
    logits = prepared_logits(model, task.validation.texts)
    wrong = (logits.argmax(-1) != np.asarray(task.validation.labels)).astype(np.float64)
    values = {"identity": identity, "seconds": training.seconds, "wrong": wrong.tolist()}
    write_json(values, folder / SIZE_RESULT)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Trained(wrong, training.seconds)


def _read(file: Path, identity: str) -> Trained | None:
    if not file.exists():
        return None
    values = json.loads(file.read_text(encoding="utf-8"))
    if values["identity"] != identity:
        message = f"'{file.parent}' holds a training of another recipe, base or other rows. Choose another folder with --output, or remove it."
        raise OutputFolderError(message)
    return Trained(np.array(values["wrong"]), values["seconds"])


def _identity(recipe: Recipe, task: Task) -> str:
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    parts = (recipe_sha256(recipe), task.fingerprint(), base_fingerprint(source.folder))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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
    chosen.task_type.refuse_label_mismatch(task.labels, chosen.training)
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
    if not recipe.task_type.one_label:
        message = f"A learning curve counts wrong labels; it needs task: single-label (the recipe has {recipe.task})."
        raise UsageError(message)
    if recipe.stages:
        message = "A learning curve is one of the recipe's own task. Run its stages first, and initialize from their artifact: model.init_from in the place of stages."
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
