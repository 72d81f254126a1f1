"""Cross-validation: a run for each fold of train, and their joint result."""

from __future__ import annotations

import dataclasses
import gc
import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.adapters.loading import load
from peftune.baselines.baseline import COUNTS, P_VALUES
from peftune.baselines.simple import baseline_scores
from peftune.data.task_data import CROSS_VALIDATION, Task
from peftune.errors import UsageError
from peftune.experiments.report import CONTROL, Cost, Fold, Forgetting, Run
from peftune.experiments.run_evidence import (
    DOCUMENTS,
    TEXTS,
    DocumentScores,
    Evidence,
    read_evidence,
    read_lines,
)
from peftune.experiments.run_folder import BASE, PREDICTIONS, write_lines
from peftune.experiments.run_inputs import Inputs
from peftune.findings.finding import Finding
from peftune.forgetting.results import ProbeResult, assess_change, verdict
from peftune.models.inference import predict_logits
from peftune.probes.base import TOO_LARGE
from peftune.recipe import Recipe
from peftune.seeds import stream_seed
from peftune.tasks import methods_of
from peftune.tasks.scores import Learning, learned_something

_OF_ONE_MODEL = "kl_ci95, mcnemar, heads, quantization: several models were measured; the report of each fold has its own"
_LEAST = np.finfo(np.float64).tiny


def learning_across(found: Sequence[Evidence], task: Task, *, metric: str | None) -> Learning:
    """Score every row of train with the prediction of the run that did not train on it."""
    probabilities = np.concatenate([one.rows.probabilities for one in found])
    labels = np.concatenate([one.rows.labels for one in found])
    return methods_of(task.task_name).score(
        np.log(np.maximum(probabilities, _LEAST)),
        tuple(labels.tolist()),
        names=task.labels,
        split=CROSS_VALIDATION,
        metric=metric,
        baselines=_baselines([one.run.learning for one in found]),
    )


def _baselines(found: Sequence[Learning]) -> dict[str, dict[str, float]]:
    """Average the baselines over folds, each as often as it has rows; counts of rows add up."""
    weights = [learning.n for learning in found]

    def together(name: str, metric: str) -> float:
        values = [one.baselines[name][metric] for one in found]
        return sum(values) if metric in COUNTS else float(np.average(values, weights=weights))

    return {
        name: {
            metric: together(name, metric)
            for metric in scores
            # It is of one model's answers, and several models answered.
            if metric not in P_VALUES
        }
        for name, scores in found[0].baselines.items()
    }


def documents_across(found: Sequence[Evidence]) -> dict[str, DocumentScores]:
    """Average the folds' scores of every document; they share the base's scores."""
    return {
        name: dataclasses.replace(
            first, after=np.mean([one.documents[name].after for one in found], axis=0)
        )
        for name, first in found[0].documents.items()
    }


def forgetting_across(
    runs: Sequence[Run],
    documents: Mapping[str, DocumentScores],
    *,
    learned: bool,
) -> Forgetting:
    """Return the mean forgetting of the folds; a control that failed in one fold has failed."""
    controls = [run.forgetting.controls[CONTROL] for run in runs]
    measured = [control for control in controls if control is not None]
    control = max(measured, key=abs) if measured else None
    sound = control in (None, 0.0)
    probes = [
        _probe(
            [run.forgetting[probe.name] for run in runs],
            documents[probe.name],
            learned=learned,
            sound=sound,
        )
        for probe in runs[0].forgetting
    ]
    if not probes or not sound:
        first = next((run.forgetting for run in runs if run.forgetting.verdict is None), None)
        return Forgetting(probes, {CONTROL: control}, None, first.reason if first else None)
    word = verdict([probe.verdict for probe in probes])
    return Forgetting(probes, {CONTROL: control}, word, None if word else "no probe has a margin")


def _probe(
    found: Sequence[ProbeResult],
    documents: DocumentScores,
    *,
    learned: bool,
    sound: bool,
) -> ProbeResult:
    """Put the mean of the folds in the place of one model, with intervals over documents."""
    first = found[0]
    sign = -1.0 if documents.higher_is_better else 1.0
    change = assess_change(
        sign * documents.before,
        sign * documents.after,
        documents.weight,
        margin=first.margin,
        # Averaged over folds, a document is right in a share of them.
        right_or_wrong=False,
        learned=learned,
    )
    kls = [one.kl for one in found if one.kl is not None]
    details = {key: _mean([one.details[key] for one in found]) for key in first.details}
    too_large = [f"details: {key} {TOO_LARGE}" for key, mean in details.items() if mean is None]
    return dataclasses.replace(
        first,
        after=statistics.fmean(one.after for one in found),
        forgetting=statistics.fmean(one.forgetting for one in found),
        ci95=change.ci95,
        ci90=change.ci90,
        verdict=change.verdict if sound else None,
        power=change.power,
        kl=statistics.fmean(kls) if kls else None,
        kl_ci95=None,
        mcnemar=None,
        heads=None,
        quantization=None,
        details=details,
        reason="; ".join(dict.fromkeys(filter(None, (first.reason, *too_large, _OF_ONE_MODEL)))),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def cost_across(costs: Sequence[Cost]) -> Cost:
    """Sum the costs of the folds; memory is that of the largest."""
    seconds = [cost.train_seconds for cost in costs]
    peaks = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
    timed = [second for second in seconds if second is not None]
    together = sum(timed) if len(timed) == len(costs) else None
    examples = sum(cost.examples_seen for cost in costs)
    reasons = list(dict.fromkeys(cost.reason for cost in costs if cost.reason))
    return dataclasses.replace(
        costs[0],
        train_seconds=together,
        train_examples_per_second=examples / together if together else None,
        peak_memory_bytes=max(peaks, default=None),
        artifact_bytes=sum(cost.artifact_bytes for cost in costs),
        examples_seen=examples,
        steps=sum(cost.steps for cost in costs),
        reason="; ".join(reasons) or None,
    )


def findings_across(runs: Sequence[Run]) -> list[Finding]:
    """Return each finding once, from the first fold that has it, with the number of folds."""
    by_code: dict[str, list[tuple[int, Finding]]] = {}
    for number, run in enumerate(runs):
        for finding in run.findings:
            by_code.setdefault(finding.code, []).append((number, finding))
    return [
        dataclasses.replace(
            seen[0][1],
            message=f"In {len({number for number, _ in seen})} of {len(runs)} folds; fold {seen[0][0]}: {seen[0][1].message}",
        )
        for seen in by_code.values()
    ]


logger = logging.getLogger(__name__)

FOLDS = "folds"
TEST_PREDICTIONS = "test-predictions.jsonl"


def is_cross_validated(recipe: Recipe) -> bool:
    """Return whether a recipe asks for all folds rather than one of them."""
    return recipe.data.cross_validation is not None and recipe.data.fold is None


def refuse_folds(recipe: Recipe, what: str) -> None:
    """Refuse a recipe with folds where a single split is needed.

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
    """Score the test set with the mean of the folds' logits, and write its predictions."""
    if task.test is None:
        return None
    texts, sums = task.test.texts, None
    for run in runs:
        found = _logits(recipe, run, texts)
        sums = found if sums is None else sums + found
        gc.collect()  # modules refer to each other, and the next model is as large
    logits = np.asarray(sums) / len(runs)
    methods = methods_of(task.task_name)
    predicted = methods.predictions(logits, names=task.labels)
    lines = (
        {"id": row, **methods.scored_row(prediction, label, names=task.labels)}
        for row, label, prediction in zip(task.test.ids, task.test.labels, predicted, strict=True)
    )
    write_lines(lines, folder / TEST_PREDICTIONS)
    return methods.score(
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
    """Write the predictions of every row, fold by fold, and the scores of every document."""
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
