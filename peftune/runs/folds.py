"""A run once for each fold of train, and what the folds say together."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.artifacts.load import load
from peftune.baselines.without_model import baseline_scores
from peftune.data.task import Task
from peftune.errors import UsageError
from peftune.models.inference import predict_logits
from peftune.recipe import Recipe
from peftune.runs.across_folds import (
    cost_across,
    documents_across,
    findings_across,
    forgetting_across,
    learning_across,
)
from peftune.runs.evidence import (
    DOCUMENTS,
    TEXTS,
    DocumentScores,
    Evidence,
    read_evidence,
    read_lines,
)
from peftune.runs.folder import BASE, PREDICTIONS, write_lines
from peftune.runs.forgetting import CONTROL
from peftune.runs.inputs import Inputs
from peftune.runs.report import Fold, Run
from peftune.seeds import stream_seed
from peftune.tasks.judge import judge
from peftune.tasks.learning import Learning, learned_something
from peftune.tasks.predictions import predictions_of, scored_row

logger = logging.getLogger(__name__)

FOLDS = "folds"
TEST_PREDICTIONS = "test-predictions.jsonl"


def is_cross_validated(recipe: Recipe) -> bool:
    """Say whether a recipe asks for all folds, and not for one of them."""
    return recipe.data.cross_validation is not None and recipe.data.fold is None


def refuse_folds(recipe: Recipe, what: str) -> None:
    """Refuse what trains on one split of its own.

    Raises:
        UsageError: the recipe asks for folds.
    """
    if recipe.data.cross_validation is not None:
        message = f"{what} has one split of the rows, not folds. Set data.cross_validation=null, or cross-validate each recipe with peftune run."
        raise UsageError(message)


def cross_validate(
    recipe: Recipe,
    task: Task,
    inputs: Inputs,
    folder: Path,
    run_one: Callable[[Recipe, Path], Run],
) -> Run:
    """Run a recipe once for each fold, and score all rows by the run that did not see them.

    Each fold is a run of its own in `folds/`; one that has finished is read, not run again.

    Args:
        recipe: resolved.
        task: its rows; of them the test, if there is one, is scored by all folds together.
        inputs: hashes of all that the run reads.
        folder: the run folder.
        run_one: runs a recipe into a folder.

    Returns:
        What the folds say together, without the checks of the data.
    """
    count = recipe.data.cross_validation or 0
    for number in range(count):
        logger.info("fold %d of %d", number + 1, count)
        run_one(_fold_recipe(recipe, number, folder), folder / FOLDS / str(number))
    found = [read_evidence(folder / FOLDS / str(number)) for number in range(count)]
    runs = [one.run for one in found]
    learning = learning_across(found, task, metric=recipe.training.metric_for_best_model)
    test = _scored_together(recipe, task, runs, folder) if task.test is not None else None
    documents = documents_across(found)
    _write_evidence(found, documents, folder)
    identity = dataclasses.replace(
        runs[0].run,
        name=recipe.name,
        recipe_sha256=inputs.recipe_sha256,
        data_fingerprint=inputs.data_fingerprint,
        order_sha256=None,
    )
    return Run(
        folder=folder,
        run=identity,
        learning=learning,
        forgetting=forgetting_across(runs, documents, learned=learned_something(learning)),
        cost=cost_across([run.cost for run in runs]),
        findings=findings_across(runs),
        environment=runs[0].environment,
        checks=runs[0].checks,
        folds=tuple(_fold(run, folder) for run in runs),
        test=test,
    )


def _fold_recipe(recipe: Recipe, number: int, folder: Path) -> Recipe:
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-fold-{number}",
            "data": recipe.data.model_copy(update={"fold": number}),
            "output_dir": str(folder / FOLDS / str(number)),
        }
    )


def _fold(run: Run, folder: Path) -> Fold:
    learning = run.learning
    return Fold(
        folder=run.folder.relative_to(folder).as_posix(),
        n=learning.n,
        accuracy=learning.accuracy,
        macro_f1=learning.macro_f1,
        loss=learning.loss,
        forgetting={probe.name: probe.forgetting for probe in run.forgetting},
        control=run.forgetting.controls[CONTROL],
    )


def _scored_together(
    recipe: Recipe, task: Task, runs: Sequence[Run], folder: Path
) -> Learning | None:
    """Score the test by the mean of the folds' logits, and write what is said of its rows."""
    if task.test is None:
        return None
    texts, sums = task.test.texts, None
    for run in runs:
        found = _logits(recipe, run, texts)
        sums = found if sums is None else sums + found
        gc.collect()  # modules refer to each other, and the next model is as large
    logits = np.asarray(sums) / len(runs)
    said = predictions_of(logits, kind=task.kind, names=task.labels)
    lines = (
        {"id": row, **scored_row(prediction, label, kind=task.kind, names=task.labels)}
        for row, label, prediction in zip(task.test.ids, task.test.labels, said, strict=True)
    )
    write_lines(lines, folder / TEST_PREDICTIONS)
    return judge(
        logits,
        task.test.labels,
        names=task.labels,
        split="test",
        metric=recipe.training.metric_for_best_model,
        baselines=baseline_scores(
            task, task.test, logits=logits, seed=stream_seed(recipe.training.seed, "bootstrap")
        ),
    )


def _logits(recipe: Recipe, run: Run, texts: Sequence[str]) -> NDArray[np.float64]:
    """Read texts, which are cleaned already, by the artifact of a fold."""
    own, named = run.folder / BASE, recipe.model.name_or_path
    base = str(own) if own.is_dir() else named if Path(named).exists() else None
    classifier = load(run.artifact, base=base, use_cpu=recipe.training.use_cpu)
    return np.asarray(
        predict_logits(
            classifier.model, classifier.tokenizer, texts, max_length=classifier.max_length
        ),
        np.float64,
    )


def _write_evidence(
    found: Sequence[Evidence], documents: Mapping[str, DocumentScores], folder: Path
) -> None:
    """Write what the folds say of every row, fold by fold, and of every document."""
    write_lines(_copied(found, PREDICTIONS), folder / PREDICTIONS)
    write_lines(_copied(found, TEXTS), folder / TEXTS)
    write_lines(_document_lines(documents), folder / DOCUMENTS)


def _copied(found: Sequence[Evidence], name: str) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(found):
        for line in read_lines(one.run.folder / name):
            yield {**line, "fold": number}


def _document_lines(documents: Mapping[str, DocumentScores]) -> Iterator[dict[str, Any]]:
    for probe, scores in documents.items():
        for index in range(len(scores.weight)):
            yield {
                "probe": probe,
                "document": index,
                "before": float(scores.before[index]),
                "after": float(scores.after[index]),
                "weight": float(scores.weight[index]),
                "excerpt": scores.excerpts[index],
            }
