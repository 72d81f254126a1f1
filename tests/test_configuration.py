"""Strategies, probes and regularizers in Python: what is refused, and keys of other libraries."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import peft
import pytest
import transformers
from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedModel

import peftune
from peftune.configuration import why_no_field
from peftune.errors import PeftuneError, RecipeError, UsageError
from peftune.plugins import PluginGroup
from peftune.probes import PROBES
from peftune.recipe import read_recipe
from peftune.recipe.training import TrainingSection
from peftune.regularizers import REGULARIZERS
from peftune.strategies import (
    STRATEGIES,
    Full,
    LoRA,
    LoRA8bit,
    Strategy,
    StrategyChoice,
    TrainingDefaults,
    chosen_strategy,
)

LORA_KEYS = (
    "layers_to_transform, lora_alpha, lora_dropout, r, target_modules, use_dora, use_rslora"
)


class Scaled(Strategy):
    """A strategy that a plug-in brings, with a reason for a key that it lacks."""

    name = "scaled"
    training_defaults = TrainingDefaults(1e-3)
    not_fields: ClassVar[dict[str, str]] = {"gain": "Did you mean 'scale'?"}

    scale: float = 1.0

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Do nothing."""
        return model


@pytest.mark.parametrize(
    ("plugin", "fields", "message"),
    [
        (
            LoRA,
            {"alpha": 16},
            f"LoRA.alpha: unknown field. Did you mean 'lora_alpha'? Available: {LORA_KEYS}.",
        ),
        (LoRA, {"r": 0}, "LoRA.r: must be greater than 0 (got 0)."),
        (LoRA, {"r": "x"}, "LoRA.r: must be an integer (got 'x')."),
        (
            LoRA,
            {"r": 0, "rank": 3},
            (
                "LoRA.r: must be greater than 0 (got 0).\n"
                "LoRA.rank: unknown field. Did you mean 'r'? The rank is called as in peft.LoraConfig."
            ),
        ),
        (
            LoRA,
            {"target_modules": ["c attn"]},
            "LoRA.target_modules[0]: must match the pattern ^[A-Za-z0-9_.]+$ (got 'c attn').",
        ),
        (
            LoRA8bit,
            {"load_in_8bit": True},
            (
                "LoRA8bit.load_in_8bit: unknown field. "
                "This strategy always holds the base in int8; remove it."
            ),
        ),
        (
            LoRA8bit,
            {"bias": "all"},
            (
                "LoRA8bit.bias: unknown field. Biases stay frozen (bias: none), so that the adapter "
                "switched off is exactly the base; remove it. The strategy 'full' trains them."
            ),
        ),
        (
            Full,
            {"learning_rate": 1e-3},
            (
                "Full.learning_rate: unknown field. "
                "It belongs to the training: set training.learning_rate."
            ),
        ),
        (Scaled, {"gain": 2.0}, "Scaled.gain: unknown field. Did you mean 'scale'?"),
        (Scaled, {"scale": "x"}, "Scaled.scale: must be a number (got 'x')."),
        (
            Scaled,
            {"seed": 1},
            "Scaled.seed: unknown field. It belongs to the training: set training.seed.",
        ),
        (
            peftune.probes.LanguageModelLoss,
            {},
            "LanguageModelLoss: needs either 'dataset_name' or 'file', and not both.",
        ),
        (
            peftune.probes.LanguageModelLoss,
            {"file": "a.txt", "max_documents": 0},
            "LanguageModelLoss.max_documents: must be greater than 0 (got 0).",
        ),
        (
            peftune.regularizers.KLToBase,
            {"weight": -1},
            "KLToBase.weight: must be greater than or equal to 0 (got -1).",
        ),
    ],
)
def test_a_field_that_cannot_be_is_one_error_of_peftune(
    plugin: Callable[..., object], fields: dict[str, object], message: str
) -> None:
    """What pydantic finds is told in one line a field; plug-ins get it by inheriting."""
    with pytest.raises(PeftuneError) as caught:
        plugin(**fields)

    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (LoRA, "LoRA takes its fields by name, such as LoRA(r=...) (got 8)."),
        (peftune.HeadOnly, "HeadOnly has no fields (got 8)."),
    ],
)
def test_a_field_without_a_name_is_refused(plugin: Callable[..., object], message: str) -> None:
    """`LoRA(8)` does not say which field is 8."""
    with pytest.raises(UsageError) as caught:
        plugin(8)

    assert str(caught.value) == message


def test_every_registered_class_refuses_an_unknown_field_in_one_line() -> None:
    """No class that a user constructs shows pydantic's error."""
    groups: tuple[PluginGroup[Any], ...] = (STRATEGIES, PROBES, REGULARIZERS)
    for plugin in [plugin for group in groups for plugin in group.load_all()[0].values()]:
        with pytest.raises(UsageError, match=r"^\w+\.no_such_field: unknown field\. "):
            plugin(no_such_field=1)


def test_validation_stays_pydantics() -> None:
    """Recipes and manifests need the error with its paths."""
    with pytest.raises(ValidationError):
        LoRA.model_validate({"alpha": 16})
    assert "lora_alpha" in inspect.signature(LoRA).parameters


# What names a strategy.


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("lora", LoRA()),
        (LoRA, LoRA()),
        (LoRA(r=2), LoRA(r=2)),
        ({"name": "lora-8bit", "r": 2}, LoRA8bit(r=2)),
        (Scaled, Scaled()),
    ],
    ids=str,
)
def test_a_strategy_is_taken_in_every_form(choice: StrategyChoice, expected: Strategy) -> None:
    """A name, a class, an instance and a mapping."""
    assert chosen_strategy(choice) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            "lroa",
            (
                "Unknown strategy 'lroa'. Did you mean 'lora'? "
                "Available: full, head-only, lora, lora-8bit."
            ),
        ),
        (
            {"r": 8},
            (
                "A mapping names its strategy under 'name', such as {'name': 'lora', 'r': 8} "
                "(got None). Available: full, head-only, lora, lora-8bit."
            ),
        ),
        (
            {"name": "lora", "alpha": 8},
            f"LoRA.alpha: unknown field. Did you mean 'lora_alpha'? Available: {LORA_KEYS}.",
        ),
        (
            peft.LoraConfig(r=8),
            (
                "A strategy is an instance such as peftune.LoRA(r=8), its name such as 'lora', or a "
                "mapping such as {'name': 'lora', 'r': 8} (got an object of the class LoraConfig)."
            ),
        ),
        (
            peft.LoraConfig,
            (
                "A strategy is an instance such as peftune.LoRA(r=8), its name such as 'lora', or a "
                "mapping such as {'name': 'lora', 'r': 8} (got the class LoraConfig)."
            ),
        ),
        (
            None,
            (
                "A strategy is an instance such as peftune.LoRA(r=8), its name such as 'lora', or a "
                "mapping such as {'name': 'lora', 'r': 8} (got None)."
            ),
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(type(value).__name__),
)
def test_what_names_no_strategy_is_refused_by_every_function(choice: object, message: str) -> None:
    """`prepare` and the reader of recipes ask the same function."""
    choice = cast("StrategyChoice", choice)
    with pytest.raises(UsageError) as prepared:
        peftune.prepare("bundled:tiny-gpt2", strategy=choice, labels=["a", "b"])
    if choice is not None:  # a recipe has a strategy of its own
        with pytest.raises(UsageError) as read:
            read_recipe("quickstart", strategy=choice)
        assert str(read.value) == message

    assert str(prepared.value) == message


def test_a_name_prepares_the_strategys_defaults(tiny_base: Path) -> None:
    """`prepare(strategy="lora")` is `prepare(strategy=LoRA())`."""
    models = [
        peftune.prepare(str(tiny_base), strategy=choice, labels=["a", "b"], use_cpu=True)[0]
        for choice in ("lora", LoRA, LoRA())
    ]

    counts = [sum(w.numel() for w in m.parameters() if w.requires_grad) for m in models]
    assert len(set(counts)) == 1


# Keys of other libraries.


def test_every_key_of_training_arguments_is_a_key_here_or_has_a_sentence() -> None:
    """Whatever is pasted from a script is taken, or answered with what peftune does instead."""
    names = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    older = {"evaluation_strategy", "warmup_ratio", "no_cuda", "group_by_length"}

    unanswered = {
        name
        for name in (names | older) - set(TrainingSection.model_fields)
        if why_no_field(name, TrainingSection) is None
    }

    assert unanswered == set()


@pytest.mark.parametrize("strategy", [LoRA, LoRA8bit])
def test_every_key_of_lora_config_is_a_field_or_has_a_sentence(strategy: type[LoRA]) -> None:
    """Whatever is pasted from a `LoraConfig` is taken, or answered with the reason."""
    names = {field.name for field in dataclasses.fields(peft.LoraConfig)}

    unanswered = {
        name for name in names - set(strategy.model_fields) if why_no_field(name, strategy) is None
    }

    assert unanswered == set()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "training.load_best_model_at_end=true",
            (
                "The checkpoint with the best metric_for_best_model is always loaded at the end; "
                "remove it."
            ),
        ),
        (
            "training.save_strategy=epoch",
            (
                "A checkpoint is kept at every evaluation (eval_strategy), the best and the last of "
                "them; remove it."
            ),
        ),
        (
            "training.save_total_limit=2",
            (
                "A checkpoint is kept at every evaluation (eval_strategy), the best and the last of "
                "them; remove it."
            ),
        ),
        (
            "training.warmup_ratio=0.1",
            (
                "Use warmup_steps: a number below 1 is a share of all steps, such as "
                "warmup_steps: 0.1."
            ),
        ),
        (
            "training.evaluation_strategy=epoch",
            "Did you mean 'eval_strategy'? It was renamed in transformers 4.41.",
        ),
        (
            "training.fp16=true",
            (
                "peftune computes in float32 or bfloat16 and never in float16, whose range is too "
                "small to train small updates in; use bf16: auto, true or false."
            ),
        ),
        (
            "training.output_dir=x",
            "It stands at the top level of the recipe, beside training: output_dir, or --output.",
        ),
        (
            "training.push_to_hub=true",
            (
                "Nothing is pushed in training; share the artifact afterwards with "
                "'peftune adapter push'."
            ),
        ),
        (
            "training.no_cuda=true",
            (
                "The device is chosen by itself: a GPU where there is one; set use_cpu: true to stay "
                "on the CPU."
            ),
        ),
        (
            "model.load_in_8bit=true",
            "Choose strategy: {name: lora-8bit}, which holds the base in int8.",
        ),
        ("strategy.rank=8", "Did you mean 'r'? The rank is called as in peft.LoraConfig."),
        (
            "strategy.dropout=0.1",
            f"Did you mean 'lora_dropout'? Available: {LORA_KEYS}.",
        ),
        (
            "strategy.task_type=SEQ_CLS",
            "The recipe's task decides it (SEQ_CLS for a classifier); remove it.",
        ),
        (
            "strategy.modules_to_save=[score]",
            (
                "The classification head always learns and is saved with the adapter, and nothing "
                "else; remove it."
            ),
        ),
        ("seed=1", "Did you mean 'data.seed', 'training.seed' or 'tune.seed'?"),
        ("data.max_length=64", "Did you mean 'model.max_length'?"),
        ("forgetting.output_dir=x", "Did you mean 'output_dir'?"),
    ],
)
def test_a_pasted_key_gets_the_sentence_that_helps(override: str, sentence: str) -> None:
    """What peftune does instead, the key that does it here, or where the key belongs."""
    key = override.partition("=")[0]

    with pytest.raises(RecipeError) as caught:
        read_recipe("quickstart", [override])

    assert str(caught.value) == f"command line '{override}': {key}: unknown key. {sentence}"
