"""What one adapter adds to a base: a low-rank update of its trunk, and a head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer, LoraModel
from torch import nn

from peftune.artifacts.tensors import ADAPTER_NAME
from peftune.errors import UsageError
from peftune.models.parts import head_of, trainable_parameters, unwrapped


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A low-rank update of a trunk, as PEFT puts it beside the weights.

    Args:
        config: of this update alone, with its targets by their full names.
        tensors: by the names that PEFT saves them under.
    """

    config: LoraConfig
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """All that tells a tuned classifier from its base.

    Args:
        trunk: what it changes of the trunk; None for a head alone.
        head: the classification head, (labels, hidden), float32.
    """

    trunk: LowRank | None
    head: torch.Tensor


def taken_off(prepared: nn.Module, *, name: str, strategy: str) -> Update:
    """Copy what an adapter adds, and take it off its base again.

    Args:
        prepared: the base with the adapter on it, as its strategy prepared it; afterwards the base
            has no adapter, and a head of no meaning.
        name: what messages call the adapter.
        strategy: name of its strategy.

    Raises:
        UsageError: it is more than a low-rank update and a head, so it cannot share its base.
    """
    head = _matrix_of(prepared, name, strategy)
    trunk = _low_rank(prepared, name, strategy)
    if isinstance(prepared, PeftModel):
        prepared.base_model.unload()
    return Update(trunk, head)


def refuse_whole_trunk(prepared: nn.Module, *, name: str, strategy: str) -> None:
    """Refuse an adapter that changes weights of the trunk themselves.

    Raises:
        UsageError: what learned of the trunk is no low-rank update.
    """
    is_lora = isinstance(prepared, PeftModel) and isinstance(prepared.base_model, LoraModel)
    beside = {id(weight) for weight in head_of(prepared).parameters()}
    if is_lora:
        for layer in _lora_layers(prepared).values():
            beside |= {id(weight) for weight in layer.parameters()}
            beside -= {id(weight) for weight in layer.get_base_layer().parameters()}
    if any(id(weight) not in beside for weight in trainable_parameters(prepared).values()):
        message = f"'{name}' cannot share its base: its strategy '{strategy}' changes the trunk otherwise than by LoRA updates beside its weights. Load it alone, with peftune.load."
        raise UsageError(message)


def _lora_layers(prepared: nn.Module) -> dict[str, LoraLayer]:
    return {
        place: module
        for place, module in unwrapped(prepared).named_modules()
        if isinstance(module, LoraLayer)
    }


def _matrix_of(prepared: nn.Module, name: str, strategy: str) -> torch.Tensor:
    learned = [weight for weight in head_of(prepared).parameters() if weight.requires_grad]
    if len(learned) != 1 or learned[0].ndim != 2:  # noqa: PLR2004 - a matrix
        message = f"'{name}' cannot share its base: its strategy '{strategy}' makes the head more than one matrix. Load it alone, with peftune.load."
        raise UsageError(message)
    return learned[0].detach().clone()


def _low_rank(prepared: nn.Module, name: str, strategy: str) -> LowRank | None:
    refuse_whole_trunk(prepared, name=name, strategy=strategy)
    if not isinstance(prepared, PeftModel):
        return None
    config = copy.deepcopy(prepared.peft_config[ADAPTER_NAME])
    layers = _lora_layers(prepared)
    if not layers or not isinstance(config, LoraConfig):
        return None
    # The head is held apart, for adapters differ in their labels; and what a pattern or a list of
    # layers has found is said by name.
    config.task_type = None
    config.modules_to_save = None
    config.target_modules = sorted(layers)
    config.layers_to_transform = None
    config.layers_pattern = None
    config.inference_mode = True
    head = {weight.data_ptr() for weight in head_of(prepared).parameters()}
    saved = get_peft_model_state_dict(
        prepared, adapter_name=ADAPTER_NAME, save_embedding_layers=False
    )
    tensors = {
        key: tensor.detach().clone()
        for key, tensor in saved.items()
        if tensor.data_ptr() not in head
    }
    return LowRank(config, tensors)
