"""`adapter_config.json`: written for plain PEFT, and never believed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Mapping
from typing import Any

from peft import PeftModel, TaskType

from peftune.artifacts.tensors import ADAPTER_NAME
from peftune.errors import ArtifactError
from peftune.files.strict_json import parse_json
from peftune.recipe.task import TaskName, has_head

_OF_THE_WRITER = frozenset({"base_model_name_or_path", "fan_in_fan_out", "peft_version"})
"""Keys that tell how the file was written: PEFT sets the second by the layers that it finds."""


def peft_config(model: PeftModel, *, task: TaskName, hub_id: str | None) -> dict[str, Any]:
    """Return what plain PEFT must be told to load the adapter as it is.

    Args:
        model: the prepared model.
        task: what it learns.
        hub_id: the base's name on the hub, if it has one; a folder's path is never written.
    """
    values = model.peft_config[ADAPTER_NAME].to_dict()
    values |= {"base_model_name_or_path": hub_id, "inference_mode": True}
    if not has_head(task):
        values |= {"task_type": TaskType.CAUSAL_LM, "modules_to_save": None}
    plain: dict[str, Any] = json.loads(json.dumps(values, default=_plain))
    return plain


def written(values: Mapping[str, Any]) -> bytes:
    """Write a configuration as PEFT does."""
    return json.dumps(values, indent=2, sort_keys=True).encode()


def check_peft_config(
    content: bytes, model: PeftModel, *, task: TaskName, hub_id: str | None, source: str
) -> None:
    """Refuse a configuration that would make plain PEFT load something else than peftune does.

    Args:
        content: the file's bytes.
        model: as peftune prepared it from the manifest.
        task: what it learned.
        hub_id: the base's name on the hub, if it has one.
        source: what messages call the file.

    Raises:
        ArtifactError: a value differs, or a key that this PEFT does not know says anything.
    """
    found = parse_json(content, source=source)
    if not isinstance(found, dict):
        message = f"'{source}' is no JSON object."
        raise ArtifactError(message)
    expected = peft_config(model, task=task, hub_id=hub_id)
    # PEFT gains fields with every release: a file of another one lacks some, at their defaults.
    complete = {**_defaults(model, expected), **found}
    for key in sorted({*complete, *expected} - _OF_THE_WRITER):
        if key not in expected:
            if complete[key]:
                message = f"'{source}' has the key '{key}', which the installed PEFT does not know. Upgrade peft, or fetch the adapter again."
                raise ArtifactError(message)
        elif not _same(complete.get(key), expected[key]):
            message = f"'{source}' says '{key}' otherwise than the strategy does; plain PEFT would load another model than peftune. Fetch the adapter again."
            raise ArtifactError(message)
    if found.get("base_model_name_or_path") not in (None, hub_id):
        message = f"'{source}' names another base than the manifest does, which plain PEFT would fetch. Fetch the adapter again."
        raise ArtifactError(message)


def _defaults(model: PeftModel, names: Container[str]) -> dict[str, Any]:
    """Return what PEFT takes for the named keys where a file lacks them."""
    values = {}
    for field in dataclasses.fields(model.peft_config[ADAPTER_NAME]):
        if field.name not in names:
            continue
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    plain: dict[str, Any] = json.loads(json.dumps(values, default=_plain))
    return plain


def _same(found: object, expected: object) -> bool:
    """Compare values whose types must agree too; what PEFT holds as a set has no order."""
    if isinstance(found, list) and isinstance(expected, list):
        return sorted(map(repr, found)) == sorted(map(repr, expected))
    # A whole number may have become a float on its way; true and 1 stay two things.
    return isinstance(found, bool) is isinstance(expected, bool) and found == expected


def _plain(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    message = f"PEFT's configuration holds a {type(value).__name__}, which JSON has no word for"
    raise TypeError(message)
