"""Each guard refuses the fault that it is there for, with a message that names the remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from peftune import prepare
from peftune.errors import GuardError
from peftune.models.architecture import head_of
from peftune.strategies import Strategy, TrainingDefaults

LABELS = ("no", "yes")
NUMBER = r"\d+(\.\d+)?(e[+-]\d+)?"


class Faulty(Strategy):
    """A LoRA by hand, which is right until a subclass spoils it."""

    name: ClassVar[str] = "faulty"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(1.0e-3)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Adapt the attention weights."""
        return _adapted(model, _lora())


class StartsElsewhere(Faulty):
    """Its update is random at the start instead of zero."""

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Leave both factors random."""
        config = _lora()
        config.init_lora_weights = False
        return _adapted(model, config)


class FreezesTheHead(Faulty):
    """It forgets peft's task type, so peft freezes the new head with the base."""

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Leave out the task type."""
        config = _lora()
        config.task_type = None
        return _adapted(model, config)


class AdaptsNothing(Faulty):
    """It says that the backbone learns, and trains the head alone."""

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze the backbone."""
        model.requires_grad_(False)
        head_of(model).requires_grad_(True)
        return model


class TrainsTheBackboneInSecret(Faulty):
    """It says that the head learns alone, and trains the backbone too."""

    trains_backbone: ClassVar[bool] = False


class LearnsNothing(Faulty):
    """Both factors of its update are zero, and so are both gradients, for ever."""

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Zero the first factor beside the second."""
        prepared = _adapted(model, _lora())
        with torch.no_grad():
            for name, weight in prepared.named_parameters():
                if "lora_A" in name:
                    weight.zero_()
        return prepared


class RewritesTheBase(Faulty):
    """PiSSA moves the largest singular values out of the base: equal logits up to rounding only."""

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Initialize from the base's own weights, which are reduced by as much."""
        config = _lora()
        config.init_lora_weights = "pissa"
        return _adapted(model, config)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            StartsElsewhere(),
            "Strategy 'faulty' failed the guard 'identity': wrapping alone changes the logits by NUMBER; start from an update of zero.",
        ),
        (
            FreezesTheHead(),
            "Strategy 'faulty' failed the guard 'head': the classification head is frozen; with peft, pass task_type=TaskType.SEQ_CLS.",
        ),
        (
            AdaptsNothing(),
            "Strategy 'faulty' failed the guard 'backbone': no weight but the head is trainable; check which modules it adapts, or set trains_backbone = False.",
        ),
        (
            TrainsTheBackboneInSecret(),
            "Strategy 'faulty' failed the guard 'backbone': 'base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight' is trainable although trains_backbone is False.",
        ),
        (
            LearnsNothing(),
            "Strategy 'faulty' failed the guard 'gradient': no weight of the adapter gets a gradient from the loss, so nothing but the head would learn.",
        ),
        (
            RewritesTheBase(),
            "Strategy 'faulty' failed the guard 'reference': with the adapter disabled the logits differ from the base's by NUMBER; it must not change weights of the base while wrapping.",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Strategy) else "its message",
)
def test_a_planted_fault_fails_its_guard(
    strategy: Strategy, message: str, tiny_base: Path
) -> None:
    """A strategy with one fault is refused by the one guard that knows this fault."""
    with pytest.raises(GuardError) as refused:
        prepare(str(tiny_base), strategy=strategy, labels=LABELS, use_cpu=True)

    pattern = re.escape(message).replace("NUMBER", NUMBER)
    assert re.fullmatch(pattern, str(refused.value)), refused.value


def test_the_guards_pass_a_strategy_without_a_fault(tiny_base: Path) -> None:
    """The unspoiled strategy is accepted, and the guards leave no gradient and no change behind."""
    model, _ = prepare(str(tiny_base), strategy=Faulty(), labels=LABELS, use_cpu=True)

    assert all(weight.grad is None for weight in model.parameters())
    assert not any(
        weight.any() for name, weight in model.named_parameters() if "lora_B" in name
    ), "the update is no longer zero"


def _lora() -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.SEQ_CLS, r=4, target_modules=["c_attn"], fan_in_fan_out=True
    )


def _adapted(model: PreTrainedModel, config: LoraConfig) -> nn.Module:
    adapted: nn.Module = get_peft_model(model, config)
    return adapted
