"""Fill in what a recipe leaves to the strategy, and put another strategy in its place."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.scalarfloat import ScalarFloat

from peftune.configuration import with_paths
from peftune.files.publishing import replace_file
from peftune.recipe.schema import CompareSection, Recipe, TuneSection
from peftune.recipe.task_type import TaskType
from peftune.recipe.training import TrainingSection
from peftune.recipe.yaml_document import Positions, explain, raise_faults, reads_as_text
from peftune.strategies import STRATEGIES, Strategy, StrategyChoice, chosen_strategy


def with_strategy(recipe: Recipe, strategy: StrategyChoice) -> Recipe:
    """Put another strategy into a recipe.

    A strategy given by name keeps the hyper-parameters that the recipe sets and that both have
    (`r` of `lora` serves `lora-8bit` too), so that a comparison compares like with like.

    Raises:
        PluginError: no strategy of that name.
        UsageError: what is given is not a strategy.
        RecipeError: a hyper-parameter that both have is out of the other's bounds.
    """
    if not isinstance(strategy, str):
        return recipe.model_copy(update={"strategy": chosen_strategy(strategy)})
    if strategy == recipe.strategy.name:
        return recipe
    chosen = STRATEGIES.get(strategy)
    shared = recipe.strategy.model_fields_set & set(chosen.model_fields)
    kept = {name: getattr(recipe.strategy, name) for name in shared}
    try:
        return recipe.model_copy(update={"strategy": chosen.model_validate(kept)})
    except ValidationError as error:
        source = f"strategy '{strategy}', with the values that the recipe has for '{recipe.strategy.name}'"
        raise_faults(explain(error, chosen, (), Positions(source)))
        raise


def resolve(recipe: Recipe) -> Recipe:
    """Fill every default: per-strategy training keys first, then the strategy's own defaults.

    What concerns other strategies (`compare`) and other values (`tune`) is not part of a run.
    """
    overrides: dict[str, Any] = recipe.compare.training.get(recipe.strategy.name, {})
    stages = tuple(
        stage.model_copy(
            update={
                "training": _filled(stage.training.model_dump(), recipe.strategy, stage.task_type)
            }
        )
        for stage in recipe.stages
    )
    training = _filled(
        {**recipe.training.model_dump(), **overrides}, recipe.strategy, recipe.task_type
    )
    resolved = recipe.model_copy(
        update={
            "stages": stages,
            "training": training,
            "compare": CompareSection(),
            "tune": TuneSection(),
        }
    )
    return with_seed(resolved, training.seed)


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Put another seed into a recipe; its stages have the same one."""
    stages = tuple(
        stage.model_copy(update={"training": stage.training.model_copy(update={"seed": seed})})
        for stage in recipe.stages
    )
    training = recipe.training.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"stages": stages, "training": training})


def tuned_metric(recipe: Recipe) -> str:
    """Return the validation metric that a search improves."""
    chosen = recipe.tune.metric or recipe.training.metric_for_best_model
    return chosen or recipe.task_type.default_metric


def _filled(values: dict[str, Any], strategy: Strategy, task: TaskType) -> TrainingSection:
    """Fill what the strategy and the task decide where the recipe does not."""
    defaults = {
        **dataclasses.asdict(strategy.training_defaults),
        "metric_for_best_model": task.default_metric,
    }
    filled = {key: value for key, value in defaults.items() if values[key] is None}
    return TrainingSection.model_validate({**values, **filled})


OF_A_RUN = (
    "# The resolved recipe of this run: every default is filled in. Run it again with\n"
    "#   peftune run recipe.yaml --output ANOTHER-FOLDER\n"
)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values, in the order of the schema."""
    values = recipe.model_dump(mode="json", exclude={"compare", "tune"})
    for name in ("compare", "tune"):
        if written := getattr(recipe, name).model_dump(mode="json", exclude_defaults=True):
            values[name] = written
    return {name: values[name] for name in Recipe.model_fields if name in values}


def recipe_sha256(recipe: Recipe) -> str:
    """Hash what a run computes: everything but where its files lie and where it writes."""
    values = recipe_values(with_paths(recipe, _file_name))
    del values["output_dir"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_recipe(recipe: Recipe, path: Path, *, header: str = OF_A_RUN) -> None:
    """Write a recipe beside its results; files are named relative to it.

    Running the file again repeats the run, as long as the files keep their relative places. A file
    that holds these very bytes is left alone.

    Args:
        recipe: what to write.
        path: where to.
        header: comment lines that say what it is and how to run it.
    """
    content = written_recipe(recipe, path, header=header)
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    replace_file(path, content)


def written_recipe(recipe: Recipe, path: Path, *, header: str = OF_A_RUN) -> bytes:
    """Return what `write_recipe` writes to a path."""
    folder = path.resolve().parent
    values = recipe_values(with_paths(recipe, lambda value, *_: _relative(value, folder)))
    return (header + _yaml_text(values)).encode("utf-8")


def _yaml_text(values: dict[str, Any]) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 2**20  # a long line that is folded loses spaces
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.Representer = _StrictRepresenter
    buffer = io.StringIO()
    yaml.dump(values, buffer)
    return buffer.getvalue()


class _StrictRepresenter(SafeRepresenter):
    """Write what every YAML reader reads the same: floats with a point (`1.0e-05`), `'no'` in quotes."""


def _represent_float(representer: SafeRepresenter, value: float) -> Any:  # noqa: ANN401 - a ruamel node
    text = repr(value)
    mantissa, exponent_mark, exponent = text.partition("e")
    if exponent_mark and "." not in mantissa:
        text = f"{mantissa}.0e{exponent}"
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_text(representer: SafeRepresenter, value: str) -> Any:  # noqa: ANN401 - a ruamel node
    style = '"' if not value.isprintable() else None if reads_as_text(value) else "'"
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_StrictRepresenter.add_representer(float, _represent_float)
_StrictRepresenter.add_representer(ScalarFloat, _represent_float)
_StrictRepresenter.add_representer(str, _represent_text)


def _file_name(value: str, *_: object) -> str:
    return Path(value).name if Path(value).is_absolute() else value


def _relative(value: str, folder: Path) -> str:
    if not Path(value).is_absolute():
        return value
    relative = os.path.relpath(value, folder)
    return relative if relative.startswith(".") else f"./{relative}"
