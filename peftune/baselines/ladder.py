"""The ladder of a comparison: every baseline on the rows that the strategies are judged on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from peftune.baselines.asking import Questions
from peftune.baselines.few_shot import few_shot
from peftune.baselines.linear_probe import frozen_base, linear_probe_predictions
from peftune.baselines.majority import majority_predictions
from peftune.baselines.scores import Baseline, judged_baseline
from peftune.baselines.tfidf import tfidf_predictions
from peftune.data.rows import Rows
from peftune.data.splits import limit
from peftune.data.task import Task
from peftune.errors import UsageError
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.prepare import preparation_of
from peftune.recipe import Recipe

BATCH = 64
"""Prompts in one forward pass."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """How the base is prompted.

    Args:
        shots: numbers of examples.
        seeds: each chooses other examples.
        most_rows: rows that it is asked about, a stratified sample of those judged: each costs a
            forward pass for every label and every choice of examples.
    """

    shots: tuple[int, ...] = (0, 4, 16)
    seeds: tuple[int, ...] = (0, 1, 2)
    most_rows: int = 1000


PROMPTING = Prompting()


def ladder(recipe: Recipe, task: Task, prompting: Prompting = PROMPTING) -> list[Baseline]:
    """Measure every baseline; each learns from train alone and is judged as the strategies are.

    Args:
        recipe: names the base and how much of a text is read; its strategy plays no part.
        task: the rows.
        prompting: how the base is prompted.

    Returns:
        Majority, words, linear probe, and the prompted base for each number of examples.

    Raises:
        BaseModelError: the base cannot be found or read.
    """
    model = frozen_base(recipe, task)
    return [
        _measured(
            "majority",
            "majority class",
            lambda: majority_predictions(task.train, task.judged[1]),
            task=task,
        ),
        _measured(
            "tfidf_logistic_regression",
            "TF-IDF, logistic regression",
            lambda: tfidf_predictions(task.train, task.judged[1]),
            task=task,
        ),
        _measured(
            "linear_probe",
            "linear probe of the frozen base",
            lambda: linear_probe_predictions(model, task.train, task.judged[1]),
            task=task,
        ),
        *_prompted(model, recipe, task, prompting),
    ]


def few_shot_ladder(
    recipe: Recipe, task: Task, prompting: Prompting = PROMPTING
) -> list[Baseline]:
    """Measure the prompted base alone, as `ladder` does.

    Raises:
        BaseModelError: the base cannot be found or read.
    """
    return _prompted(frozen_base(recipe, task), recipe, task, prompting)


def majority_of(task: Task, asked: Rows) -> Baseline:
    """Measure the most frequent label of train on the rows that the base is asked about."""
    return judged_baseline(
        "majority",
        "majority class",
        judged=asked,
        predicted=[majority_predictions(task.train, asked)],
        labels=len(task.labels),
        seconds=0.0,
    )


def _measured(name: str, title: str, predict: Callable[[], list[int]], *, task: Task) -> Baseline:
    judged = task.judged[1]
    started = time.perf_counter()
    try:
        predicted = predict()
    except UsageError as error:
        seconds = time.perf_counter() - started
        return Baseline(
            name, title, tuple(judged.ids), None, None, None, None, seconds, {}, str(error)
        )
    return judged_baseline(
        name,
        title,
        judged=judged,
        predicted=[predicted],
        labels=len(task.labels),
        seconds=time.perf_counter() - started,
    )


def _prompted(
    model: nn.Module, recipe: Recipe, task: Task, prompting: Prompting
) -> list[Baseline]:
    preparation = preparation_of(model)
    scorer = LanguageModelScorer(model, preparation.tokenizer, batch_size=BATCH, share_prefix=True)
    asked = asked_rows(task, prompting.most_rows, seed=recipe.data.seed)
    return [
        few_shot(
            scorer,
            preparation.tokenizer,
            Questions(
                train=task.train,
                judged=asked,
                labels=task.labels,
                shots=shots,
                window=scorer.window,
                max_length=preparation.max_length,
            ),
            seeds=prompting.seeds,
        )
        for shots in prompting.shots
    ]


def asked_rows(task: Task, most: int, *, seed: int) -> Rows:
    """Return the rows that the base is asked about: those judged, or a stratified sample of them.

    Args:
        task: the rows.
        most: how many; more only where there are more labels.
        seed: seed of the data.
    """
    judged = task.judged[1]
    return limit(judged, max(most, len(set(judged.labels))), seed=seed, key="max_test_examples")
