"""Few-shot classification of a recipe's rows: the base is prompted, and nothing is trained."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.baselines.kept import ladder_identity, read_ladder, write_ladder
from peftune.baselines.ladder import Prompting, asked_rows, few_shot_ladder, majority_of
from peftune.baselines.scores import Baseline
from peftune.data.normalised import normalised
from peftune.data.task import Task, load_task
from peftune.errors import OutputFolderError, UsageError
from peftune.files.paths import given_path
from peftune.files.publish import make_writable
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve

logger = logging.getLogger(__name__)

RESULT = "fewshot.json"


@dataclass(frozen=True, slots=True)
class FewShot:
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
    majority, *prompted = _measured(chosen, task, Prompting(shots=tuple(shots)), output)
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
    judged = {normalised(text) for text in task.judged[1].texts}
    kept = [row for row, text in enumerate(task.train.texts) if normalised(text) not in judged]
    left_out = len(task.train) - len(kept)
    if left_out:
        task = dataclasses.replace(task, train=task.train.take(kept))
    return task, left_out


def _measured(
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
