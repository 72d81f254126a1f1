"""The ladder of a comparison: every baseline on the rows that the strategies are judged on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from peftune.baselines.calibration import CONTENT_FREE
from peftune.baselines.few_shot import few_shot
from peftune.baselines.linear_probe import linear_probe_predictions
from peftune.baselines.majority import majority_predictions
from peftune.baselines.prompt import TEMPLATE
from peftune.baselines.scores import Baseline, judged_baseline
from peftune.baselines.tfidf import tfidf_predictions
from peftune.data.rows import Rows
from peftune.data.splits import limit
from peftune.data.task import Task
from peftune.errors import UsageError
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.fingerprint import base_fingerprint
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.source import find_base
from peftune.models.tokenizer import load_tokenizer, tokenizer_sha256
from peftune.recipe import Recipe
from peftune.seeds import stream_seed
from peftune.strategies import HeadOnly

SHOTS = (0, 4, 16)
SEEDS = (0, 1, 2)
MOST_ROWS = 1000
"""Rows that a prompted base is asked about: each costs a forward pass for every label and choice."""

_BATCH = 64


def ladder(
    recipe: Recipe,
    task: Task,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    most_rows: int = MOST_ROWS,
) -> list[Baseline]:
    """Measure every baseline; each learns from train alone and is judged as the strategies are.

    Args:
        recipe: names the base and how much of a text is read; its strategy plays no part.
        task: the rows.
        shots: numbers of examples to prompt the base with.
        seeds: choices of these examples.
        most_rows: rows that the prompted base is asked about: a stratified sample of those judged.

    Returns:
        Majority, words, linear probe, and the prompted base for each number of examples.

    Raises:
        BaseModelError: the base cannot be found or read.
    """
    model = _base(recipe, task)
    return [
        _measured(
            "majority",
            "majority class",
            lambda: majority_predictions(task.train, task.judged[1]),
            recipe=recipe,
            task=task,
        ),
        _measured(
            "tfidf_logistic_regression",
            "TF-IDF, logistic regression",
            lambda: tfidf_predictions(task.train, task.judged[1]),
            recipe=recipe,
            task=task,
        ),
        _measured(
            "linear_probe",
            "linear probe of the frozen base",
            lambda: linear_probe_predictions(model, task.train, task.judged[1]),
            recipe=recipe,
            task=task,
        ),
        *_prompted(model, recipe, task, shots=shots, seeds=seeds, most_rows=most_rows),
    ]


def few_shot_ladder(
    recipe: Recipe,
    task: Task,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    most_rows: int = MOST_ROWS,
) -> list[Baseline]:
    """Measure the prompted base alone, as `ladder` does.

    Raises:
        BaseModelError: the base cannot be found or read.
    """
    model = _base(recipe, task)
    return _prompted(model, recipe, task, shots=shots, seeds=seeds, most_rows=most_rows)


def kept_ladder(
    recipe: Recipe,
    task: Task,
    file: Path,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    most_rows: int = MOST_ROWS,
) -> list[Baseline]:
    """Read the ladder from a file if it is the one asked for; otherwise measure it, and write it.

    Args:
        recipe: see `ladder`.
        task: see `ladder`.
        file: JSON; a torn or foreign one counts as absent, and is replaced as a whole.
        shots: see `ladder`.
        seeds: see `ladder`.
        most_rows: see `ladder`.
    """
    identity = ladder_identity(recipe, task, shots=shots, seeds=seeds, most_rows=most_rows)
    found = read_ladder(file, identity)
    if found is not None:
        return found
    measured = ladder(recipe, task, shots=shots, seeds=seeds, most_rows=most_rows)
    content = {"identity": identity, "baselines": [baseline.as_json() for baseline in measured]}
    staged = file.with_name(f"{file.name}.partial")
    staged.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(staged, file)  # noqa: PTH105 - says that it is atomic
    return measured


def read_ladder(file: Path, identity: str | None = None) -> list[Baseline] | None:
    """Read a ladder; None if the file holds none, or another than the one with this identity."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if identity is not None and content["identity"] != identity:
            return None
        return [Baseline.from_json(values) for values in content["baselines"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def ladder_identity(
    recipe: Recipe,
    task: Task,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    most_rows: int = MOST_ROWS,
) -> str:
    """Hash all that a ladder depends on: rows, base, choices and protocol."""
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    facts = {
        "rows": task.fingerprint(),
        "ids": [task.train.ids, task.judged[1].ids],
        "base": base_fingerprint(source.folder),
        "tokenizer": tokenizer_sha256(load_tokenizer(source.folder)),
        "max_length": recipe.model.max_length,
        "seed": recipe.data.seed,
        "few_shot": [list(shots), list(seeds), most_rows],
        "protocol": _protocol(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _protocol() -> dict[str, Any]:
    """Say how the baselines are measured; another number here is another ladder."""
    return {"version": 1, "template": TEMPLATE, "content_free": CONTENT_FREE, "batch": _BATCH}


def _base(recipe: Recipe, task: Task) -> nn.Module:
    """Load the base in float32 with a head to fit; its trunk is frozen, so it stays the base."""
    return prepare_model(
        recipe.model.name_or_path,
        HeadOnly(),
        labels=task.labels,
        revision=recipe.model.revision,
        max_length=recipe.model.max_length,
        use_cpu=recipe.training.use_cpu,
    )


def _measured(
    name: str, title: str, predict: Callable[[], list[int]], *, recipe: Recipe, task: Task
) -> Baseline:
    judged = task.judged[1]
    started = time.perf_counter()
    try:
        predicted = predict()
    except UsageError as error:
        seconds = time.perf_counter() - started
        return Baseline(name, title, judged.ids, None, None, None, None, seconds, {}, str(error))
    return judged_baseline(
        name,
        title,
        judged=judged,
        predicted=[predicted],
        labels=len(task.labels),
        seed=_bootstrap_seed(recipe),
        seconds=time.perf_counter() - started,
    )


def _prompted(
    model: nn.Module,
    recipe: Recipe,
    task: Task,
    *,
    shots: Sequence[int],
    seeds: Sequence[int],
    most_rows: int,
) -> list[Baseline]:
    preparation = preparation_of(model)
    scorer = LanguageModelScorer(
        model, preparation.tokenizer, batch_size=_BATCH, share_prefix=True
    )
    return [
        few_shot(
            scorer,
            preparation.tokenizer,
            train=task.train,
            judged=_asked_rows(task, most_rows, recipe.data.seed),
            labels=task.labels,
            shots=count,
            seeds=seeds,
            window=scorer.window,
            max_length=preparation.max_length,
            bootstrap_seed=_bootstrap_seed(recipe),
        )
        for count in shots
    ]


def _asked_rows(task: Task, most: int, seed: int) -> Rows:
    return limit(task.judged[1], most, seed=seed, key="max_test_examples")


def _bootstrap_seed(recipe: Recipe) -> int:
    """Derive the seed of the intervals from the rows': the ladder is one for all seeds."""
    return stream_seed(recipe.data.seed, "bootstrap")
