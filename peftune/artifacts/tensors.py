"""The adapter's tensors under the names that the file uses."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from peftune.errors import ArtifactError, GuardError
from peftune.files.tensor_header import (
    MAX_HEADER_BYTES,
    TensorSpec,
    check_header,
    read_header,
)
from peftune.models.parts import head_of, trainable_parameters

ADAPTER_NAME = "default"
_FILE_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


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
    """Copy a file's tensors into the weights that learn, after checking every one of them.

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


def trunk_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the learning weights other than the head's, by the name that the file uses."""
    head = {id(weight) for weight in head_of(model).parameters()}
    return {name: w for name, w in adapter_tensors(model).items() if id(w) not in head}


def insert_trunk(model: nn.Module, tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copy tensors into the learning weights other than the head's.

    Raises:
        ArtifactError: they do not fit exactly; the model is untouched.
    """
    weights = trunk_tensors(model)
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
