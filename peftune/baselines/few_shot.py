"""Few-shot prompting of the untuned base, as `peftune fewshot` does it, with its table."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftune.baselines.baseline import Baseline, scored_baseline
from peftune.baselines.measure import (
    Prompting,
    asked_rows,
    baselines_identity,
    measure_prompted,
    read_baselines,
    write_baselines,
)
from peftune.baselines.simple import majority_predictions
from peftune.data.task_data import Task, load_task
from peftune.data.text_hashes import normalized
from peftune.display import Block, Displayed, data_frame
from peftune.errors import OutputFolderError, UsageError
from peftune.files.publishing import make_writable
from peftune.files.reading import given_path
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.stats.formats import with_interval

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

RESULT = "fewshot.json"


@dataclass(frozen=True, slots=True, repr=False)
class FewShot(Displayed):
    """Scores of the prompted base, for each number of examples.

    Args:
        name: the recipe's name.
        base_model: the base that was prompted.
        split: split of the evaluation rows.
        rows_judged: number of the evaluation rows.
        rows_asked: number of those that were prompted: all, or a stratified sample.
        examples_left_out: train rows that are not used as examples, since their text is among the
            evaluation rows.
        majority: the most frequent label of train, on the rows that were prompted.
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
        yield few_shot_rows(self)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a baseline: the majority class, then each number of examples."""
        values = self.as_json()
        return data_frame([values["majority"], *values["prompted"]])

    def as_json(self) -> dict[str, Any]:
        """Return every figure without the single rows."""
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
    """Prompt the untuned base with examples from train, and score its answers.

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
    task, left_out = _without_evaluation_texts(load_task(chosen.data, chosen.task))
    split, evaluation = task.evaluation
    majority, *prompted = _measured_prompts(chosen, task, Prompting(shots=tuple(shots)), output)
    return FewShot(
        name=chosen.name,
        base_model=chosen.model.name_or_path,
        split=split,
        rows_judged=len(evaluation),
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


def _without_evaluation_texts(task: Task) -> tuple[Task, int]:
    """Leave texts of the evaluation rows out of train: an example must not give an answer away."""
    asked = {normalized(text) for text in task.evaluation[1].texts}
    kept = [row for row, text in enumerate(task.train.texts) if normalized(text) not in asked]
    left_out = len(task.train) - len(kept)
    if left_out:
        task = dataclasses.replace(task, train=task.train.take(kept))
    return task, left_out


def _measured_prompts(
    recipe: Recipe, task: Task, prompting: Prompting, output: str | Path | None
) -> list[Baseline]:
    if output is None:
        return _measure(recipe, task, prompting)
    file = given_path(output, "output") / RESULT
    identity = baselines_identity(recipe, task, prompting)
    found = read_baselines(file, identity)
    if found is not None:
        logger.info("'%s' holds these figures already; they are not measured again", file)
        return found
    if file.exists():
        message = f"'{file}' holds the figures of another recipe, base or number of examples, or damaged ones. Choose another folder with --output, or remove it."
        raise OutputFolderError(message)
    make_writable(file.parent)
    measured = _measure(recipe, task, prompting)
    write_baselines(measured, file, identity)
    return measured


def _measure(recipe: Recipe, task: Task, prompting: Prompting) -> list[Baseline]:
    asked = asked_rows(task, prompting.most_rows, seed=recipe.data.seed)
    majority = scored_baseline(
        "majority",
        evaluation=asked,
        predicted=[majority_predictions(task.train, asked)],
        labels=len(task.labels),
    )
    return [majority, *measure_prompted(recipe, task, prompting)]


LEGEND = (
    "Brackets: 95% intervals over rows. Figures are means over the choices of examples, after contextual calibration; "
    "uncalibrated: accuracy before it. Log loss (nats) and calibration error (ECE): lower is better. "
    "Fitted: examples for which a prompt had room. Nothing was trained."
)


def few_shot_rows(found: FewShot) -> list[dict[str, str]]:
    """Return table rows: the majority class, then one row for each number of examples."""
    return [_row(baseline) for baseline in (found.majority, *found.prompted)]


def notes_of(found: FewShot) -> Iterator[str]:
    """List in sentences: what beats the majority class, what was left out, why figures are missing."""
    yield _answer(found)
    asked = f"{found.rows_asked} of {found.rows_judged}"
    sample = ", a stratified sample" if found.rows_asked < found.rows_judged else ""
    yield f"Asked about {asked} {found.split} rows{sample}; the examples are train rows."
    if found.examples_left_out:
        yield f"Left out of the examples: {found.examples_left_out} train rows whose text is among the {found.split} rows."
    for baseline in found.prompted:
        if baseline.accuracy is None:
            yield f"{baseline.title}: {baseline.reason}."


def _answer(found: FewShot) -> str:
    chance = found.majority.accuracy or 0.0
    above = [
        baseline.title
        for baseline in found.prompted
        if baseline.ci95 is not None and baseline.ci95[0] > chance
    ]
    if not above:
        return f"No prompt is clearly above the majority class ({chance:.3f})."
    return f"Clearly above the majority class ({chance:.3f}): {'; '.join(above)}."


def _row(baseline: Baseline) -> dict[str, str]:
    details = baseline.details
    choices = [choice for choice in details.get("choices", ()) if "accuracy" in choice]
    return {
        "": f"{details['shots']} examples" if "shots" in details else baseline.title,
        "accuracy": with_interval(baseline.accuracy, baseline.ci95, ".3f"),
        "macro F1": with_interval(baseline.macro_f1, None, ".3f"),
        "log loss": with_interval(_mean(choices, "log_loss"), None, ".3f"),
        "ECE": with_interval(_mean(choices, "ece"), None, ".3f"),
        "uncalibrated": with_interval(
            (details.get("uncalibrated") or {}).get("accuracy"), None, ".3f"
        ),
        "fitted": _fitted(choices),
        "choices": str(len(choices) or "-"),
        "seconds": f"{baseline.seconds:.0f}" if details else "-",
    }


def _fitted(choices: list[Mapping[str, Any]]) -> str:
    fitted = [choice["examples_fitted"] for choice in choices]
    if not fitted:
        return "-"
    fewest, most = (
        pick(one[key] for one in fitted) for pick, key in ((min, "fewest"), (max, "most"))
    )
    return str(most) if fewest == most else f"{fewest} to {most}"


def _mean(choices: list[Mapping[str, Any]], key: str) -> float | None:
    values = [float(choice[key]) for choice in choices if choice.get(key) is not None]
    return sum(values) / len(values) if values else None
