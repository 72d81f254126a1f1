"""All baselines of a comparison on its evaluation rows, kept in a file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from peftune.baselines.baseline import TITLES, Baseline, scored_baseline
from peftune.baselines.prompting import CONTENT_FREE, TEMPLATE, Questions, few_shot
from peftune.baselines.simple import (
    frozen_base,
    linear_probe_predictions,
    majority_predictions,
    tfidf_predictions,
)
from peftune.data.rows import Rows
from peftune.data.splits import limit
from peftune.data.task_data import Task
from peftune.errors import UsageError
from peftune.files.publishing import replace_file, writing
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.base_files import find_base
from peftune.models.fingerprint import base_fingerprint
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import load_tokenizer, tokenizer_sha256
from peftune.recipe import Recipe

BATCH = 64
"""Prompts in one forward pass."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """How the base is prompted.

    Args:
        shots: numbers of examples.
        seeds: each chooses other examples.
        most_rows: largest number of evaluation rows in the prompts, a stratified sample: each costs
            a forward pass for every label and every choice of examples.
    """

    shots: tuple[int, ...] = (0, 4, 16)
    seeds: tuple[int, ...] = (0, 1, 2)
    most_rows: int = 1000


PROMPTING = Prompting()


def measure_baselines(
    recipe: Recipe, task: Task, prompting: Prompting = PROMPTING
) -> list[Baseline]:
    """Measure every baseline: it learns from train alone and is scored on the evaluation rows.

    Args:
        recipe: names the base and how much of a text is read; its strategy plays no part.
        task: the rows.
        prompting: how the base is prompted.

    Returns:
        Majority, TF-IDF, linear probe, and the prompted base for each number of examples.

    Raises:
        BaseModelError: the base cannot be found or read.
    """
    model = frozen_base(recipe, task)
    train, evaluation = task.train, task.evaluation[1]
    predictors: dict[str, Callable[[], list[int]]] = {
        "majority": lambda: majority_predictions(train, evaluation),
        "tfidf_logistic_regression": lambda: tfidf_predictions(train, evaluation),
        "linear_probe": lambda: linear_probe_predictions(model, train, evaluation),
    }
    return [
        *(_measured(name, predict, task) for name, predict in predictors.items()),
        *_prompted(model, recipe, task, prompting),
    ]


def measure_prompted(
    recipe: Recipe, task: Task, prompting: Prompting = PROMPTING
) -> list[Baseline]:
    """Measure the prompted base alone; see `measure_baselines`."""
    return _prompted(frozen_base(recipe, task), recipe, task, prompting)


def _measured(name: str, predict: Callable[[], list[int]], task: Task) -> Baseline:
    evaluation = task.evaluation[1]
    started = time.perf_counter()
    try:
        predicted = predict()
    except UsageError as error:
        return Baseline(
            name,
            TITLES[name],
            rows=tuple(evaluation.ids),
            seconds=time.perf_counter() - started,
            reason=str(error),
        )
    return scored_baseline(
        name,
        evaluation=evaluation,
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
                evaluation=asked,
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
    """Return the rows that the base is asked about: the evaluation rows, or a stratified sample of them.

    Args:
        task: the rows.
        most: how many; more only where there are more labels.
        seed: seed of the data.
    """
    rows = task.evaluation[1]
    return limit(rows, max(most, len(set(rows.labels))), seed=seed, key="max_test_examples")


def kept_baselines(
    recipe: Recipe, task: Task, file: Path, prompting: Prompting = PROMPTING
) -> list[Baseline]:
    """Read the baselines from a file that holds these; otherwise measure and write them.

    Args:
        recipe: see `measure_baselines`.
        task: see `measure_baselines`.
        file: JSON; a damaged or changed one counts as absent, and is replaced as a whole.
        prompting: see `measure_baselines`.
    """
    identity = baselines_identity(recipe, task, prompting)
    found = read_baselines(file, identity)
    if found is None:
        found = measure_baselines(recipe, task, prompting)
        write_baselines(found, file, identity)
    return found


def write_baselines(baselines: Sequence[Baseline], file: Path, identity: str) -> None:
    """Write baselines to a file, whole or not at all."""
    figures = json.loads(json.dumps([baseline.as_json() for baseline in baselines]))
    content = {"identity": identity, "checksum": _checksum(figures), "baselines": figures}
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_baselines(file: Path, identity: str | None = None) -> list[Baseline] | None:
    """Read baselines; None for a file without them, or with those of another identity.

    Figures that do not fit their checksum count as absent.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if identity is not None and content["identity"] != identity:
            return None
        if content["checksum"] != _checksum(content["baselines"]):
            return None
        return [Baseline.from_json(values) for values in content["baselines"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _checksum(figures: object) -> str:
    return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()


def baselines_identity(recipe: Recipe, task: Task, prompting: Prompting = PROMPTING) -> str:
    """Hash all that the baselines depend on: rows, base, choices and protocol; not the strategy."""
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    facts = {
        "rows": task.fingerprint(),
        "ids": [list(task.train.ids), list(task.evaluation[1].ids)],
        "base": base_fingerprint(source.folder),
        "tokenizer": tokenizer_sha256(load_tokenizer(source.folder)),
        "max_length": recipe.model.max_length,
        "seed": recipe.data.seed,
        "few_shot": [prompting.shots, prompting.seeds, prompting.most_rows],
        "protocol": _protocol(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _protocol() -> dict[str, Any]:
    """Describe how the baselines are measured; another version number measures all of them again."""
    return {"version": 3, "template": TEMPLATE, "content_free": CONTENT_FREE, "batch": BATCH}
