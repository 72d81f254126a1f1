"""The adapter's tensors under the names that the file uses."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from peftune.errors import ArtifactError, GuardError
from peftune.models.parts import trainable_parameters

ADAPTER_NAME = "default"


def adapter_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that learn, by the name under which the file holds them.

    PEFT's files leave out the adapter's name and the wrapper around the head; any other model's
    weights keep their own names.
    """
    weights = trainable_parameters(model)
    if not isinstance(model, PeftModel):
        return weights
    wrappers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, AuxiliaryTrainingWrapper)
    ]
    return {_file_name(name, wrappers): weight for name, weight in weights.items()}


def check_against_peft(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make sure that the file holds exactly what PEFT itself would write.

    Raises:
        GuardError: a weight learns that PEFT would not save, or the other way round.
    """
    expected = set(
        get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME, save_embedding_layers=False)
    )
    if difference := sorted(expected ^ set(tensors)):
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
    weights = adapter_tensors(model)
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


def _file_name(name: str, wrappers: list[str]) -> str:
    for wrapper in wrappers:
        for inner in (f"{wrapper}.modules_to_save.{ADAPTER_NAME}", f"{wrapper}.token_adapter"):
            if name.startswith(f"{inner}."):
                return wrapper + name[len(inner) :]
    return name.replace(f".{ADAPTER_NAME}.", ".").removesuffix(f".{ADAPTER_NAME}")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
