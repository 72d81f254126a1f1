"""Stages before a recipe's own task, and the forgetting of each stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peftune.experiments.report import Run, StageForgetting
from peftune.experiments.run_evidence import DOCUMENTS
from peftune.forgetting.before_and_after import Measured
from peftune.forgetting.measurement import ProbeText
from peftune.forgetting.results import change_interval
from peftune.probes import Measurement
from peftune.recipe import Recipe
from peftune.recipe.schema import SaveSection
from peftune.recipe.task_type import TaskName

logger = logging.getLogger(__name__)

STAGES = "stages"
START = "start"
"""Name of the artifact of `model.init_from` among the stages."""

Sums = Mapping[str, NDArray[np.float64]]
"""By probe: the numerator of each document that counts, (documents,), float64."""


@dataclass(frozen=True, slots=True)
class StageEnd:
    """The model at the end of a stage.

    Args:
        name: name of the stage.
        task: what was learned in it.
        sums: the model on the probes.
    """

    name: str
    task: TaskName
    sums: Sums


def run_stages(
    recipe: Recipe, folder: Path, run_one: Callable[[Recipe, Path], Run]
) -> tuple[Recipe, list[StageEnd]]:
    """Run the stages of a recipe in order, each initialized from the one before.

    Each is a run of its own in `stages/`, with the recipe's strategy, seed and probes; one that
    has finished is read, not run again.

    Args:
        recipe: resolved.
        folder: the run folder.
        run_one: runs a recipe into a folder.

    Returns:
        The recipe of the last run, without stages, which starts from the last of them; and what
        the model had reached after each, with the start of `model.init_from` before them.
    """
    stage_ends: list[StageEnd] = []
    for number, stage in enumerate(recipe.stages, start=1):
        place = folder / STAGES / f"{number}-{stage.name}"
        logger.info("stage %d of %d: %s", number, len(recipe.stages), stage.name)
        alone = recipe.model_copy(
            update={
                "name": f"{recipe.name}-{stage.name}",
                "task": stage.task,
                "data": stage.data,
                "training": stage.training,
                "stages": (),
                "forgetting": recipe.forgetting.model_copy(update={"path": None}),
                "save": SaveSection(),
                "output_dir": str(place),
            }
        )
        result = run_one(alone, place)
        if number == 1 and result.run.start is not None:
            stage_ends.append(StageEnd(START, result.run.start.task, _sums_in(place, "start")))
        stage_ends.append(StageEnd(stage.name, stage.task, _sums_in(place, "after")))
        start = recipe.model.model_copy(update={"init_from": str(result.artifact.resolve())})
        recipe = recipe.model_copy(update={"model": start})
    return recipe.model_copy(update={"stages": ()}), stage_ends


def blamed(
    texts: Sequence[ProbeText],
    measured: Measured,
    stage_ends: Sequence[StageEnd],
    *,
    name: str,
    task: TaskName,
    start: TaskName | None,
) -> list[StageForgetting]:
    """Return how much each stage changed every probe: after it, minus after the one before.

    The changes of a probe add up to its forgetting.

    Args:
        texts: probes with their documents.
        measured: the base and the tuned model on them.
        stage_ends: from `run_stages`.
        name: name of the last stage, the run itself.
        task: what was learned in it.
        start: what the artifact had learned that the run began as; None for the base.

    Returns:
        One entry a stage; none where the model began as its base and there were no stages.
    """
    if start is None or not texts:
        return []
    begun = measured.before.start or ()
    if not stage_ends:
        stage_ends = [StageEnd(START, start, _sums(texts, begun))]
    ends = [*stage_ends, StageEnd(name, task, _sums(texts, measured.after))]
    previous = _sums(texts, measured.before.measured)
    weights = {
        text.label: before.scored().weight
        for text, before in zip(texts, measured.before.measured, strict=True)
    }
    found = []
    for end in ends:
        found.append(_change(texts, previous, end, weights))
        previous = end.sums
    return found


def _change(
    texts: Sequence[ProbeText], previous: Sums, end: StageEnd, weights: Sums
) -> StageForgetting:
    forgetting, ci95 = {}, {}
    for text in texts:
        sign = -1.0 if text.probe.higher_is_better else 1.0
        weight = weights[text.label]
        before, after = sign * previous[text.label], sign * end.sums[text.label]
        forgetting[text.label] = float((after - before).sum() / weight.sum())
        ci95[text.label] = change_interval(
            before,
            after,
            weight,
            confidence=0.95,
            right_or_wrong=text.probe.right_or_wrong,
        )
    return StageForgetting(end.name, end.task, forgetting, ci95)


def _sums(texts: Sequence[ProbeText], measured: Sequence[Measurement]) -> Sums:
    return {text.label: found.scored().total for text, found in zip(texts, measured, strict=True)}


def _sums_in(folder: Path, key: str) -> Sums:
    """Read each document's sum from a finished run."""
    sums: dict[str, list[float]] = {}
    for line in (folder / DOCUMENTS).read_text(encoding="utf-8").split("\n"):
        if line:
            values = json.loads(line)
            sums.setdefault(values["probe"], []).append(float(values[key]))
    return {name: np.array(values, dtype=np.float64) for name, values in sums.items()}
