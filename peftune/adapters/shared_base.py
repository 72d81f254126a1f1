"""Keep one base in memory with the updates of many adapters beside its weights."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraModel
from torch import nn
from transformers import GPT2ForSequenceClassification, GPT2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from peftune.adapters.reference_logits import INT8, precision_of
from peftune.adapters.tensors import ADAPTER_NAME
from peftune.errors import GuardError, UsageError
from peftune.fastpath.lora_layers import lora_layers
from peftune.models.architecture import head_of, trainable_parameters, unwrapped


@dataclass(frozen=True, slots=True, eq=False)
class LoraUpdate:
    """A low-rank update of a backbone, as PEFT puts it beside the weights.

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
        backbone: what it changes of the backbone; None for a head alone.
        head: the classification head, (labels, hidden), float32.
    """

    backbone: LoraUpdate | None
    head: torch.Tensor


def take_off_update(prepared: nn.Module, *, name: str, strategy: str) -> Update:
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
    backbone = _low_rank(prepared, name, strategy)
    if isinstance(prepared, PeftModel):
        prepared.base_model.unload()
    return Update(backbone, head)


def refuse_whole_backbone(prepared: nn.Module, *, name: str, strategy: str) -> None:
    """Refuse an adapter that changes weights of the backbone themselves.

    Raises:
        UsageError: what is trainable in the backbone is not a low-rank update.
    """
    is_lora = isinstance(prepared, PeftModel) and isinstance(prepared.base_model, LoraModel)
    beside = {id(weight) for weight in head_of(prepared).parameters()}
    if is_lora:
        for _, layer in lora_layers(prepared):
            beside |= {id(weight) for weight in layer.parameters()}
            beside -= {id(weight) for weight in layer.get_base_layer().parameters()}
    if any(id(weight) not in beside for weight in trainable_parameters(prepared).values()):
        message = f"'{name}' cannot share its base: its strategy '{strategy}' changes the backbone otherwise than by LoRA updates beside its weights. Load it alone, with peftune.load."
        raise UsageError(message)


def _matrix_of(prepared: nn.Module, name: str, strategy: str) -> torch.Tensor:
    learned = [weight for weight in head_of(prepared).parameters() if weight.requires_grad]
    if len(learned) != 1 or learned[0].ndim != 2:  # noqa: PLR2004 - a matrix
        message = f"'{name}' cannot share its base: its strategy '{strategy}' makes the head more than one matrix. Load it alone, with peftune.load."
        raise UsageError(message)
    return learned[0].detach().clone()


def _low_rank(prepared: nn.Module, name: str, strategy: str) -> LoraUpdate | None:
    refuse_whole_backbone(prepared, name=name, strategy=strategy)
    if not isinstance(prepared, PeftModel):
        return None
    config = copy.deepcopy(prepared.peft_config[ADAPTER_NAME])
    layers = [place for place, _ in lora_layers(unwrapped(prepared))]
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
    return LoraUpdate(config, tensors)


UNCHANGED = "__base__"
"""PEFT's word for a row that goes through the base as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class AdapterSlot:
    """One adapter's place on the shared base.

    Args:
        inside: PEFT's name of it; a name of our own, since PEFT cannot bear every name.
        head: its classification head, (labels, hidden), float32.
        mixes: whether its rows may share a pass with those of other adapters.
    """

    inside: str
    head: torch.Tensor
    mixes: bool


@dataclass(frozen=True, slots=True, eq=False)
class SharedBase:
    """A base whose forward pass gives what a head reads, with one adapter or another.

    Args:
        model: the classifier with the identity in the place of its head, in eval mode.
        slots: the adapters by the names that users gave them.
    """

    model: nn.Module
    slots: Mapping[str, AdapterSlot]
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def states(self, batch: Mapping[str, torch.Tensor], adapters: Sequence[str]) -> torch.Tensor:
        """Return the state of each text's last token: (batch, hidden).

        Which adapter acts is a state of the model, so one pass runs at a time.

        Args:
            batch: `input_ids` and `attention_mask`, (batch, time), int64.
            adapters: name of the adapter of each row; several only if all of them mix.
        """
        inside = [self.slots[name].inside for name in adapters]
        with self._lock:
            if not isinstance(self.model, PeftModel):
                output: torch.Tensor = self.model(**batch).logits
            elif len(set(inside)) == 1 and inside[0] != UNCHANGED:
                if self.model.active_adapter != inside[0]:
                    self.model.set_adapter(inside[0], inference_mode=True)
                output = self.model(**batch).logits
            else:
                output = self.model(**batch, adapter_names=inside).logits
        return output

    def logits(
        self, batch: Mapping[str, torch.Tensor], adapters: Sequence[str]
    ) -> list[torch.Tensor]:
        """Return the logits of each row, (labels,) of its own adapter, float32."""
        states = self.states(batch, adapters)
        return [
            nn.functional.linear(state, self.slots[name].head)
            for state, name in zip(states, adapters, strict=True)
        ]


class SharedClassifier(GPT2PreTrainedModel):
    """One adapter of a shared base, as a sequence classifier like any other.

    Args:
        shared: the base and its adapters.
        name: of the adapter.
        labels: label names in the order of their ids.
        problem_type: as in the configuration of a classifier.
    """

    def __init__(
        self, shared: SharedBase, name: str, *, labels: Sequence[str], problem_type: str | None
    ) -> None:
        config = copy.deepcopy(_plain(shared.model).config)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        config.problem_type = problem_type  # type: ignore[assignment] # one that transformers knows
        super().__init__(config)
        self.shared, self.name = shared, name
        self.model = shared.model
        self.is_loaded_in_8bit = precision_of(shared.model) == INT8
        self.eval()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> SequenceClassifierOutput:
        """Score a batch: `input_ids` and `attention_mask`, (batch, time), int64."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        states = self.shared.states(batch, [self.name] * len(input_ids))
        head = self.shared.slots[self.name].head
        return SequenceClassifierOutput(logits=nn.functional.linear(states, head))


def share(
    model: GPT2ForSequenceClassification, updates: Mapping[str, Update], *, rows_mix: bool
) -> SharedBase:
    """Put the updates of many adapters beside the weights of one base.

    Args:
        model: the base as a classifier, without any adapter; it is changed.
        updates: by the names that users gave the adapters.
        rows_mix: whether rows of several adapters may share a pass: not where a row's logits
            depend on its batch, as in int8.

    Raises:
        GuardError: PEFT did not take an update as it is.
    """
    model.score = nn.Identity()  # type: ignore[assignment]
    model.requires_grad_(False)
    whole: nn.Module = model
    slots = {}
    for index, (name, update) in enumerate(updates.items()):
        inside = UNCHANGED if update.backbone is None else f"slot{index}"
        if update.backbone is not None:
            whole = _with_update(whole, update.backbone, inside, name)
        # PEFT cannot mix rows of DoRA with others.
        mixes = rows_mix and not (update.backbone is not None and update.backbone.config.use_dora)
        slots[name] = AdapterSlot(inside, update.head, mixes)
    whole.requires_grad_(False)
    return SharedBase(whole.eval(), slots)


def _with_update(model: nn.Module, update: LoraUpdate, inside: str, name: str) -> PeftModel:
    config = copy.deepcopy(update.config)
    if isinstance(model, PeftModel):
        model.add_adapter(inside, config)
    else:
        model = get_peft_model(model, config, adapter_name=inside)
    set_peft_model_state_dict(model, dict(update.tensors), adapter_name=inside)
    taken = get_peft_model_state_dict(model, adapter_name=inside, save_embedding_layers=False)
    if set(taken) != set(update.tensors) or not all(
        torch.equal(taken[key], tensor) for key, tensor in update.tensors.items()
    ):
        message = f"PEFT did not put the update of '{name}' beside the base as it is; the versions of peftune and peft do not fit each other."
        raise GuardError(message)
    return model


def _plain(model: nn.Module) -> GPT2ForSequenceClassification:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(inner, GPT2ForSequenceClassification):
        message = f"expected a sequence classifier, got {type(inner).__name__}"
        raise TypeError(message)
    return inner
