"""Write a resolved recipe, and name it by its content."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.scalarfloat import ScalarFloat

from peftune.files.publish import replace_file
from peftune.recipe.document import reads_as_text
from peftune.recipe.schema import Recipe

OF_A_RUN = (
    "# The resolved recipe of this run: every default is filled in. Run it again with\n"
    "#   peftune run recipe.yaml --output ANOTHER-FOLDER\n"
)
_PLACES_OF_ROWS = ("train_file", "validation_file", "test_file", "dataset_name")


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values, in the order of the schema."""
    values = recipe.model_dump(mode="json", exclude={"strategy", "forgetting", "compare", "tune"})
    values["strategy"] = recipe.strategy.fields()
    section = recipe.forgetting
    values["forgetting"] = {
        "probes": [probe.fields() for probe in section.probes],
        "budget": section.budget,
        "regularizers": [term.fields() for term in section.regularizers],
        "during_training": section.during_training
        and {
            "probe": section.during_training.probe.fields(),
            "over_budget": section.during_training.over_budget,
        },
        "path": section.path and section.path.model_dump(mode="json"),
    }
    for name in ("compare", "tune"):
        if written := getattr(recipe, name).model_dump(mode="json", exclude_defaults=True):
            values[name] = written
    return {name: values[name] for name in Recipe.model_fields if name in values}


def recipe_sha256(recipe: Recipe) -> str:
    """Hash what a run computes: everything but where its files lie and where it writes."""
    values = recipe_values(recipe)
    del values["output_dir"]
    _rename_places(values, _file_name)
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
    values = recipe_values(recipe)
    _rename_places(values, partial(_relative, folder=path.resolve().parent))
    return (header + _yaml_text(values)).encode("utf-8")


def _rename_places(values: dict[str, Any], renamed: Callable[[str | None], str | None]) -> None:
    """Put another name in the place of every file and folder that a recipe names."""
    for part in (values, *values["stages"]):
        for key in _PLACES_OF_ROWS:
            part["data"][key] = renamed(part["data"][key])
    for key in ("name_or_path", "init_from"):
        values["model"][key] = renamed(values["model"][key])
    section = values["forgetting"]
    texts = [*section["probes"]]
    if section["during_training"]:
        texts.append(section["during_training"]["probe"])
    for term in section["regularizers"]:
        texts += [value for value in term.values() if isinstance(value, dict) and "file" in value]
    for text in texts:
        text["file"] = renamed(text["file"])


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


def _file_name(value: str | None) -> str | None:
    return Path(value).name if value is not None and Path(value).is_absolute() else value


def _relative(value: str | None, folder: Path) -> str | None:
    if value is None or not Path(value).is_absolute():
        return value
    relative = os.path.relpath(value, folder)
    return relative if relative.startswith(".") else f"./{relative}"
