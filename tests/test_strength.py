"""Every strength between before and after, also for adapters that peft cannot scale."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from peft import AdaLoraConfig, IA3Config, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from peftune import prepare
from peftune.models.architecture import trainable_parameters
from peftune.models.guards import logits_of
from peftune.models.interpolation import at_strength
from peftune.models.prepare import preparation_of, reference_batch
from peftune.strategies import Strategy, TrainingDefaults


class IA3(Strategy):
    """Learn a factor for each key, value and hidden unit: an adapter of peft with no scale."""

    name: ClassVar[str] = "ia3"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(1.0e-3)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Put the factors in."""
        config = IA3Config(
            task_type=TaskType.SEQ_CLS,
            target_modules=["c_attn", "mlp.c_proj"],
            feedforward_modules=["mlp.c_proj"],
            fan_in_fan_out=True,
        )
        prepared: nn.Module = get_peft_model(model, config)
        return prepared


class AdaLoRA(Strategy):
    """Learn an update of three factors, of which peft starts the middle one at zero."""

    name: ClassVar[str] = "adalora"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(1.0e-3)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Put the updates in."""
        config = AdaLoraConfig(
            task_type=TaskType.SEQ_CLS,
            target_modules=["c_attn"],
            init_r=4,
            total_step=100,
            fan_in_fan_out=True,
        )
        prepared: nn.Module = get_peft_model(model, config)
        return prepared


def test_an_update_of_three_factors_is_scaled_once(tiny_base: Path) -> None:
    """Halfway, the update of each adapted weight is half of what was learned, not a quarter."""
    model, _ = prepare(str(tiny_base), strategy=AdaLoRA(), labels=("no", "yes"), use_cpu=True)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    learned = [layer.get_delta_weight("default").detach() for layer in layers]

    with at_strength(model, preparation_of(model).before, 0.5):
        halfway = [layer.get_delta_weight("default").detach() for layer in layers]

    assert len(layers) == 2
    for whole, half in zip(learned, halfway, strict=True):
        assert float(whole.abs().max()) > 0
        torch.testing.assert_close(half, 0.5 * whole)


def test_an_adapter_without_a_scale_is_interpolated(tiny_base: Path) -> None:
    """Halfway, each weight that learns lies halfway between where it was and where it is."""
    model, tokenizer = prepare(str(tiny_base), strategy=IA3(), labels=("no", "yes"), use_cpu=True)
    before = preparation_of(model).before
    batch = reference_batch(tokenizer, torch.device("cpu"), max_length=64)
    weights = trainable_parameters(model)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.5)

    with at_strength(model, before, 0.5):
        halfway = logits_of(model, batch)

    with torch.no_grad():
        for weight in weights.values():
            weight.sub_(0.25)
    torch.testing.assert_close(halfway, logits_of(model, batch))
