"""The tensors of an adapter and their PEFT configuration, as the files hold them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Mapping
from typing import Any

import safetensors.torch
import torch
from peft import PeftModel, TaskType, get_peft_model_state_dict
from torch import nn

from peftune.errors import ArtifactError, GuardError
from peftune.files.safetensors_header import (
    MAX_HEADER_BYTES,
    TensorSpec,
    check_header,
    read_header,
)
from peftune.files.strict_json import parse_object
from peftune.models.architecture import head_of, trainable_parameters
from peftune.recipe.task_type import TaskName, has_head

ADAPTER_NAME = "default"
_FILE_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def adapter_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable weights, by the name under which the file holds them.

    A PEFT model's file is PEFT's own, so PEFT itself is asked what it calls each weight; any other
    model's weights keep their own names.
    """
    weights = trainable_parameters(model)
    if not isinstance(model, PeftModel):
        return weights
    file_names = {tensor.data_ptr(): name for name, tensor in _tensors_of_peft(model).items()}
    return {file_names.get(weight.data_ptr(), name): weight for name, weight in weights.items()}


def check_against_peft(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make sure that the file holds exactly what PEFT itself would write.

    Raises:
        GuardError: PEFT would not save a trainable weight, or the other way round.
    """
    if difference := sorted(set(_tensors_of_peft(model)) ^ set(tensors)):
        message = f"The trainable weights are not what PEFT saves: '{difference[0]}' and {len(difference) - 1} more differ. The strategy trains a weight that PEFT does not know of."
        raise GuardError(message)


def specs_of(
    weights: Mapping[str, torch.Tensor], *, dtype: torch.dtype | None = None
) -> dict[str, TensorSpec]:
    """Say what a file must hold for some weights.

    Args:
        weights: by the names that the file uses.
        dtype: the type that the file stores all of them in; each weight's own if not given.
    """
    return {
        name: TensorSpec(_FILE_TYPES[dtype or weight.dtype], tuple(weight.shape))
        for name, weight in weights.items()
    }


def largest_file(specs: Mapping[str, TensorSpec]) -> int:
    """Return the most bytes that a file of exactly these tensors can have."""
    return sum(spec.nbytes for spec in specs.values()) + MAX_HEADER_BYTES + 8


def read_tensors(
    content: bytes, expected: Mapping[str, TensorSpec], *, source: str
) -> dict[str, torch.Tensor]:
    """Read a safetensors file that must hold exactly the expected tensors, all of them finite.

    Args:
        content: the file's bytes.
        expected: what each tensor must be; worked out from strategy and base, not from the file.
        source: what messages call the file.

    Raises:
        ArtifactError: a tensor is missing, unexpected, of another type or shape, or not finite.
    """
    check_header(read_header(content, source=source), expected, source=source)
    tensors: dict[str, torch.Tensor] = safetensors.torch.load(content)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            message = f"'{source}': tensor '{name}' holds values that are not finite."
            raise ArtifactError(message)
    return tensors


def insert_tensors(
    model: nn.Module, content: bytes, *, source: str, dtype: torch.dtype | None = None
) -> None:
    """Copy a file's tensors into the trainable weights, after checking every one of them.

    Args:
        model: a prepared model.
        content: the file's bytes.
        source: what messages call the file.
        dtype: the type that the file stores; the weights' own if not given.

    Raises:
        ArtifactError: the file does not fit exactly; the model is untouched.
    """
    weights = adapter_tensors(model)
    tensors = read_tensors(content, specs_of(weights, dtype=dtype), source=source)
    _copy(tensors, weights)


def backbone_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable weights other than the head's, by the name that the file uses."""
    head = {id(weight) for weight in head_of(model).parameters()}
    return {name: w for name, w in adapter_tensors(model).items() if id(w) not in head}


def insert_backbone(model: nn.Module, tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copy tensors into the trainable weights other than the head's.

    Raises:
        ArtifactError: they do not fit exactly; the model is untouched.
    """
    weights = backbone_tensors(model)
    check_header(specs_of(tensors), specs_of(weights), source=source)
    _copy(tensors, weights)


def _copy(tensors: Mapping[str, torch.Tensor], weights: Mapping[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[name])


def _tensors_of_peft(model: PeftModel) -> dict[str, torch.Tensor]:
    """Ask PEFT what it would save; a head that takes no part is left out."""
    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, adapter_name=ADAPTER_NAME, save_embedding_layers=False
    )
    head = list(head_of(model).parameters())
    if any(weight.requires_grad for weight in head):
        return tensors
    unused = {weight.data_ptr() for weight in head}
    return {name: one for name, one in tensors.items() if one.data_ptr() not in unused}


_OF_THE_WRITER = frozenset({"base_model_name_or_path", "fan_in_fan_out", "peft_version"})
"""Keys that tell how the file was written: PEFT sets the second by the layers that it finds."""


def peft_config(model: PeftModel, *, task: TaskName, hub_id: str | None) -> dict[str, Any]:
    """Return what plain PEFT must be told to load the adapter as it is.

    Args:
        model: the prepared model.
        task: the task type.
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
        task: the task type.
        hub_id: the base's name on the hub, if it has one.
        source: what messages call the file.

    Raises:
        ArtifactError: a value differs, or a key that this PEFT does not know says anything.
    """
    found = parse_object(content, source=source)
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
