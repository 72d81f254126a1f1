"""The ladder of a comparison: every baseline on the rows that the strategies are judged on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from peftune.baselines.baseline_scores import Baseline, judged_baseline
from peftune.baselines.prompting import CONTENT_FREE, TEMPLATE, Questions, few_shot
from peftune.baselines.simple import (
    frozen_base,
    linear_probe_predictions,
    majority_predictions,
    tfidf_predictions,
)
from peftune.data.rows import Rows
from peftune.data.splits import limit
from peftune.data.task_data import Task, load_task
from peftune.data.text_hashes import normalized
from peftune.display import Block, Displayed, data_frame, with_interval
from peftune.errors import OutputFolderError, UsageError
from peftune.files.publishing import make_writable, replace_file, writing
from peftune.files.reading import given_path
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.base_files import find_base
from peftune.models.fingerprint import base_fingerprint
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import load_tokenizer, tokenizer_sha256
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve

if TYPE_CHECKING:
    import pandas as pd

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


def kept_ladder(
    recipe: Recipe, task: Task, file: Path, prompting: Prompting = PROMPTING
) -> list[Baseline]:
    """Read the ladder from a file if it is the one asked for; otherwise measure it, and write it.

    Args:
        recipe: see `ladder`.
        task: see `ladder`.
        file: JSON; a torn, changed or foreign one counts as absent, and is replaced as a whole.
        prompting: see `ladder`.
    """
    identity = ladder_identity(recipe, task, prompting)
    found = read_ladder(file, identity)
    if found is not None:
        return found
    measured = ladder(recipe, task, prompting)
    write_ladder(measured, file, identity)
    return measured


def write_ladder(baselines: list[Baseline], file: Path, identity: str) -> None:
    """Write a ladder, whole or not at all."""
    figures = json.loads(json.dumps([baseline.as_json() for baseline in baselines]))
    content = {"identity": identity, "checksum": _checksum(figures), "baselines": figures}
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_ladder(file: Path, identity: str | None = None) -> list[Baseline] | None:
    """Read a ladder; None if the file holds none, or another than the one with this identity.

    Figures that do not fit their checksum count as none.
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


def ladder_identity(recipe: Recipe, task: Task, prompting: Prompting = PROMPTING) -> str:
    """Hash all that a ladder depends on: rows, base, choices and protocol; not the strategy."""
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    facts = {
        "rows": task.fingerprint(),
        "ids": [list(task.train.ids), list(task.judged[1].ids)],
        "base": base_fingerprint(source.folder),
        "tokenizer": tokenizer_sha256(load_tokenizer(source.folder)),
        "max_length": recipe.model.max_length,
        "seed": recipe.data.seed,
        "few_shot": [prompting.shots, prompting.seeds, prompting.most_rows],
        "protocol": _protocol(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _protocol() -> dict[str, Any]:
    """Say how the baselines are measured; another number here is another ladder."""
    return {"version": 3, "template": TEMPLATE, "content_free": CONTENT_FREE, "batch": BATCH}


logger = logging.getLogger(__name__)

RESULT = "fewshot.json"


@dataclass(frozen=True, slots=True, repr=False)
class FewShot(Displayed):
    """What the prompted base answers, for each number of examples.

    Args:
        name: the recipe's name.
        base_model: the base that was prompted.
        split: split of the rows that it was asked about.
        rows_judged: rows of this split.
        rows_asked: those that it was asked about: all, or a stratified sample.
        examples_left_out: train rows that were no examples, since their text is among the judged.
        majority: the most frequent label of train, on the rows that were asked.
        prompted: one for each number of examples, in the order asked for.
    """

    name: str
    base_model: str
    split: str
    rows_judged: int
    rows_asked: int
    examples_left_out: int
    majority: Baseline
    prompted: Sequence[Baseline]

    def _blocks(self) -> Iterator[Block]:
        yield f"{self.base_model}, prompted: {self.rows_asked} of {self.rows_judged} {self.split} rows"
        yield [
            {
                "baseline": one.title,
                "accuracy": with_interval(one.accuracy, one.ci95, ".3f"),
                "macro F1": with_interval(one.macro_f1, None, ".3f"),
            }
            for one in (self.majority, *self.prompted)
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a baseline: the majority class, then each number of examples."""
        values = self.as_json()
        return data_frame([values["majority"], *values["prompted"]])

    def as_json(self) -> dict[str, Any]:
        """Return every figure, without the single rows."""
        values = dataclasses.asdict(self)
        for baseline in (values["majority"], *values["prompted"]):
            del baseline["rows"], baseline["predicted"]
        return values


@working("prompting the base")
def fewshot(
    recipe: str | Path | Recipe,
    *,
    shots: Sequence[int] = (0, 4, 16),
    overrides: Overrides = (),
    output: str | Path | None = None,
) -> FewShot:
    """Prompt the untuned base with examples from train, and score what it answers.

    The strategy and the training of the recipe play no part. Each number of examples is asked with
    three choices of them.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        shots: numbers of examples in a prompt.
        overrides: `key=value` assignments, such as `data.max_test_examples=200`.
        output: folder of `fewshot.json`, with every answer; figures that it holds already are read,
            not measured again. None writes nothing.

    Raises:
        UsageError: the task is not single-label, or a number of examples is none.
        DataError: the rows cannot be used.
        BaseModelError: the base cannot be found or read.
        OutputFolderError: the folder holds the figures of something else.
    """
    chosen = resolve(read_recipe(recipe, overrides))
    _check(chosen, shots)
    task, left_out = _without_judged_texts(load_task(chosen.data, chosen.task))
    split, judged = task.judged
    majority, *prompted = _measured_prompts(chosen, task, Prompting(shots=tuple(shots)), output)
    return FewShot(
        name=chosen.name,
        base_model=chosen.model.name_or_path,
        split=split,
        rows_judged=len(judged),
        rows_asked=len(majority.rows),
        examples_left_out=left_out,
        majority=majority,
        prompted=prompted,
    )


def _check(recipe: Recipe, shots: Sequence[int]) -> None:
    if recipe.task != "single-label":
        message = f"Few-shot prompting asks for one label a text; it needs task: single-label (the recipe has {recipe.task})."
        raise UsageError(message)
    if not shots or min(shots) < 0 or len(set(shots)) < len(shots):
        message = f"shots are numbers of examples from 0 on, each once (got {', '.join(map(str, shots)) or 'none'})."
        raise UsageError(message)


def _without_judged_texts(task: Task) -> tuple[Task, int]:
    """Leave out of train what is judged: an example must not give an answer away."""
    judged = {normalized(text) for text in task.judged[1].texts}
    kept = [row for row, text in enumerate(task.train.texts) if normalized(text) not in judged]
    left_out = len(task.train) - len(kept)
    if left_out:
        task = dataclasses.replace(task, train=task.train.take(kept))
    return task, left_out


def _measured_prompts(
    recipe: Recipe, task: Task, prompting: Prompting, output: str | Path | None
) -> list[Baseline]:
    if output is None:
        return _measure(recipe, task, prompting)
    file, identity = (
        given_path(output, "output") / RESULT,
        ladder_identity(recipe, task, prompting),
    )
    found = read_ladder(file, identity)
    if found is not None:
        logger.info("'%s' holds these figures already; they are not measured again", file)
        return found
    if file.exists():
        message = f"'{file}' holds the figures of another recipe, base or number of examples, or damaged ones. Choose another folder with --output, or remove it."
        raise OutputFolderError(message)
    make_writable(file.parent)
    measured = _measure(recipe, task, prompting)
    write_ladder(measured, file, identity)
    return measured


def _measure(recipe: Recipe, task: Task, prompting: Prompting) -> list[Baseline]:
    asked = asked_rows(task, prompting.most_rows, seed=recipe.data.seed)
    return [majority_of(task, asked), *few_shot_ladder(recipe, task, prompting)]
