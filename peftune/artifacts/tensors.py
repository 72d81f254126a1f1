"""The adapter's tensors under the names that the file uses."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from peftune.errors import ArtifactError, GuardError
from peftune.models.parts import head_of, trainable_parameters

ADAPTER_NAME = "default"


def adapter_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that learn, by the name under which the file holds them.

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
        GuardError: a weight learns that PEFT would not save, or the other way round.
    """
    if difference := sorted(set(_tensors_of_peft(model)) ^ set(tensors)):
        message = f"The trainable weights are not what PEFT saves: '{difference[0]}' and {len(difference) - 1} more differ. The strategy trains a weight that PEFT does not know of."
        raise GuardError(message)


def parse_tensors(content: bytes, *, source: str) -> dict[str, torch.Tensor]:
    """Parse safetensors bytes.

    Raises:
        ArtifactError: they are no safetensors.
    """
    try:
        return safetensors.torch.load(content)
    except Exception as error:
        message = f"'{source}' is no readable safetensors file: {error}."
        raise ArtifactError(message) from error


def insert_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copy tensors into the weights that learn, after checking names, shapes, types and values.

    Raises:
        ArtifactError: anything is missing, unexpected, of another shape or type, or not finite;
            the model is untouched.
    """
    _insert(adapter_tensors(model), tensors, source=source)


def trunk_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the learning weights other than the head's, by the name that the file uses."""
    head = {id(weight) for weight in head_of(model).parameters()}
    return {name: w for name, w in adapter_tensors(model).items() if id(w) not in head}


def insert_trunk(model: nn.Module, tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copy tensors into the learning weights other than the head's, as `insert_tensors` does.

    Raises:
        ArtifactError: they do not fit exactly; the model is untouched.
    """
    _insert(trunk_tensors(model), tensors, source=source)


def _insert(
    weights: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor], *, source: str
) -> None:
    missing, unexpected = sorted(set(weights) - set(tensors)), sorted(set(tensors) - set(weights))
    for names, fault in ((missing, "lacks"), (unexpected, "holds the unexpected")):
        if names:
            message = f"'{source}' {fault} tensor '{names[0]}'{_more(names)}; it does not fit its strategy and base."
            raise ArtifactError(message)
    for name, weight in weights.items():
        tensor = tensors[name]
        if tensor.shape != weight.shape or tensor.dtype != weight.dtype:
            message = f"'{source}': tensor '{name}' is {tensor.dtype} {list(tensor.shape)}; it must be {weight.dtype} {list(weight.shape)}."
            raise ArtifactError(message)
        if not bool(torch.isfinite(tensor).all()):
            message = f"'{source}': tensor '{name}' holds values that are not finite."
            raise ArtifactError(message)
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


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
