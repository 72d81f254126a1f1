"""The artifact of a run, with what the run says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from peftune.artifacts.rounding import Rounding, round_weights
from peftune.artifacts.save import save
from peftune.bundled import is_bundled
from peftune.data.clean import text_steps
from peftune.data.row_sketch import RowSketch
from peftune.data.task import Task
from peftune.models.parts import is_whole_model
from peftune.recipe import Recipe
from peftune.recipe.schema import DataSection
from peftune.runs.records import probe_records, task_record
from peftune.runs.report import Forgetting
from peftune.runs.scored import Scored, said_from


def round_for_storage(model: nn.Module, recipe: Recipe, task: Task) -> Rounding | None:
    """Round what was learned to the type that a recipe stores it in, if no label minds.

    Before anything is scored, so that every number of a report is of what is shared. The labels
    that must not change are those of the validation rows.

    Returns:
        What came of it; None where the recipe stores float32.
    """
    if recipe.save.dtype == "float32":
        return None
    thresholds = said_from(model, recipe.training, task)
    return round_weights(model, task.validation.texts, thresholds=thresholds)


def save_artifact(
    model: nn.Module,
    recipe: Recipe,
    scored: Scored,
    forgetting: Forgetting,
    *,
    task: Task,
    folder: Path,
    rounding: Rounding | None,
) -> Path:
    """Save what was learned, with its score on the rows that did not leak, into `adapter/` or `model/` of a run folder."""
    name = recipe.data.dataset_name or recipe.data.train_file or ""
    data = name if "://" not in name and not Path(name).is_absolute() else Path(name).name
    return save(
        model,
        folder / ("model" if is_whole_model(model) else "adapter"),
        task=task_record(
            scored.clean,
            data=data,
            columns=_columns(recipe.data),
            trained_on=_trained_on(recipe.data, task),
            leaked=scored.learning.n - scored.clean.n,
        ),
        forgetting=probe_records(forgetting),
        label_thresholds=scored.thresholds,
        dtype="float32" if rounding is None else rounding.dtype,
        clean=text_steps(recipe.data.clean),
    )


def _trained_on(section: DataSection, task: Task) -> dict[str, Any]:
    """Name what was learned from: by its hash, and on the hub where others find it too."""
    name = section.dataset_name
    is_here = name is None or is_bundled(name) or Path(name).exists()
    return {
        "rows": len(task.train),
        "data_fingerprint": task.fingerprint(),
        "hub_dataset": None if is_here else name,
        "sketches": {
            split: RowSketch.of(rows.texts).written
            for split, rows in (("train", task.train), ("validation", task.validation))
        },
    }


def _columns(section: DataSection) -> dict[str, Any]:
    """Say of which columns texts and labels are made, as a recipe says it."""
    names = {"text_column", "text_pair_column", "template", "label_column"}
    return {
        key: value
        for key, value in section.model_dump(mode="json", include=names).items()
        if value
    }
