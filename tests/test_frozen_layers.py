"""Frozen lower layers: which weights are trained, that the others are the base's for ever, and bad numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bases import write_base
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2LMHeadModel, PreTrainedModel
from tuned import TEXTS, batch, forgetting, prepared, train

import peftune
from peftune.adapters import save
from peftune.cli.main import _exit_code
from peftune.errors import RecipeError, UsageError
from peftune.forgetting.measurement import adapter_off_forgetting, measure, measure_base
from peftune.models.architecture import backbone_of, evaluating, trainable_parameters, unwrapped
from peftune.models.guards import logits_of
from peftune.recipe import read_recipe
from peftune.strategies import Full, LoRA, LoRA8bit, Strategy
from peftune.testing import StrategyContract

LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
FROZEN = [
    pytest.param(Full(freeze_layers=1), id="full"),
    pytest.param(LoRA(r=4, layers_to_transform=(1,)), id="lora"),
    pytest.param(LoRA8bit(r=4, layers_to_transform=(1,), llm_int8_threshold=0.0), id="lora-8bit"),
]


class TestFullFrozenBelow(StrategyContract):
    """The contract, where the embeddings and the lower of two blocks are frozen."""

    strategy = Full(freeze_layers=1)


class TestLoRAAbove(StrategyContract):
    """The contract, where the upper of two blocks alone gets an update."""

    strategy = LoRA(r=4, layers_to_transform=(1,))


def plain_weights(base: Path) -> dict[str, torch.Tensor]:
    """Read the base's backbone as transformers does, by the names that it has in a classifier."""
    backbone = GPT2LMHeadModel.from_pretrained(base).transformer
    return {f"transformer.{name}": weight.detach() for name, weight in backbone.named_parameters()}


def own_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights of the model, by the same names."""
    return {
        name: weight.detach().clone()
        for name, weight in unwrapped(model).named_parameters()
        if not name.startswith("score.")
    }


def changed(now: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> set[str]:
    """Name the weights that are not equal bit for bit."""
    assert set(now) == set(before)
    return {name for name, weight in now.items() if not torch.equal(weight, before[name])}


@pytest.mark.parametrize(
    ("layers", "frozen"),
    [
        (0, ()),
        (1, ("wte.", "wpe.", "h.0.")),
        (2, ("wte.", "wpe.", "h.0.", "h.1.")),
    ],
)
def test_full_fine_tuning_leaves_the_embeddings_and_the_lowest_blocks_as_they_are(
    layers: int, frozen: tuple[str, ...], base: Path, tmp_path: Path
) -> None:
    """In training, in the artifact and loaded again: they are the base's, and all others moved."""
    model, before = prepared(base, Full(freeze_layers=layers)), plain_weights(base)
    learning = {n for n in before if not n.removeprefix("transformer.").startswith(frozen or "?")}

    train(model)
    folder = save(model, tmp_path / "saved")
    loaded = peftune.load(folder, base=str(base), use_cpu=True).model

    assert changed(own_weights(model), before) == learning
    assert changed(own_weights(loaded), own_weights(model)) == set()
    assert torch.equal(logits_of(loaded, batch(model)), logits_of(model, batch(model)))
    if layers:
        held = load_file(folder / "adapter_model.safetensors")
        assert set(held) == {*learning, "score.weight"}


@pytest.mark.parametrize(
    ("layers", "targets", "adapted"),
    [
        ((0,), "all-linear", [f"h.0.{name}" for name in LINEAR]),
        ((1,), "all-linear", [f"h.1.{name}" for name in LINEAR]),
        ((1, 0), "all-linear", [f"h.{block}.{name}" for block in (0, 1) for name in LINEAR]),
        (None, "all-linear", [f"h.{block}.{name}" for block in (0, 1) for name in LINEAR]),
        ((1,), ("c_attn",), ["h.1.attn.c_attn"]),
        ((1,), ("mlp.c_proj",), ["h.1.mlp.c_proj"]),
        (None, ("transformer.h.0.mlp.c_fc",), ["h.0.mlp.c_fc"]),
    ],
)
def test_lora_stands_in_the_named_blocks_alone(
    layers: tuple[int, ...] | None,
    targets: object,
    adapted: list[str],
    base: Path,
    tmp_path: Path,
) -> None:
    """Two factors beside each target there, all of which move, saved and loaded again; the base stays."""
    fields = {"layers_to_transform": layers, "target_modules": targets}
    model = prepared(base, LoRA.model_validate({"r": 4, **fields}))
    before = {name: weight.clone() for name, weight in trainable_parameters(model).items()}
    expected = {
        f"base_model.model.transformer.{name}.lora_{factor}" for name in adapted for factor in "AB"
    }
    assert {name.split(".default")[0] for name in before if "lora" in name} == expected

    train(model)
    folder = save(model, tmp_path / "saved")
    loaded = peftune.load(folder, base=str(base), use_cpu=True).model

    moved = trainable_parameters(model)
    assert [name for name in before if torch.equal(moved[name], before[name])] == []
    plain, own = plain_weights(base), own_weights(model)
    at_rest = {n.replace(".base_layer", ""): w for n, w in own.items() if "lora_" not in n}
    assert changed(at_rest, plain) == set()
    held = load_file(folder / "adapter_model.safetensors")
    assert {name.removesuffix(".weight") for name in held if "lora" in name} == expected
    assert torch.equal(logits_of(loaded, batch(model)), logits_of(model, batch(model)))


@pytest.mark.parametrize("strategy", FROZEN)
def test_what_the_frozen_part_computes_is_the_bases(strategy: Strategy, base: Path) -> None:
    """The hidden states up to the first block are bit-identical after training; the last ones moved."""
    model = prepared(base, strategy)
    before = hidden_states(model)

    train(model)

    after = hidden_states(model)
    assert [torch.equal(a, b) for a, b in zip(after, before, strict=True)] == [True, True, False]


def hidden_states(model: nn.Module) -> list[torch.Tensor]:
    """Read two rows: the embeddings, and what each block makes of them, (batch, time, hidden)."""
    with evaluating(model):
        output = backbone_of(model)(**batch(model), output_hidden_states=True)
    return list(output.hidden_states)


@pytest.mark.parametrize("strategy", FROZEN)
def test_the_control_of_a_partly_frozen_model_is_exactly_zero(
    strategy: Strategy, base: Path
) -> None:
    """It forgets by what learned; with that off it is the base."""
    model = prepared(base, strategy)
    before = measure_base(model, TEXTS)

    train(model)

    assert abs(forgetting(before, measure(model, TEXTS))) > 1e-3
    assert adapter_off_forgetting(before, measure_base(model, TEXTS)) == 0.0


@pytest.mark.parametrize("strategy", FROZEN)
def test_activation_checkpointing_does_not_lose_the_gradient_above_what_is_frozen(
    strategy: Strategy, base: Path
) -> None:
    """Nothing below needs a gradient, which some ways of recomputing take for nothing at all."""
    gradients = []
    for checkpointing in (False, True):
        model = prepared(base, strategy)
        if checkpointing:
            checkpoint_activations(unwrapped(model))
        torch.manual_seed(3)
        model(**batch(model), labels=torch.tensor([1, 0])).loss.backward()
        gradients.append({n: w.grad for n, w in trainable_parameters(model).items()})

    plain, recomputed = gradients
    for name, gradient in plain.items():
        assert gradient is not None, name
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-7)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Transformers 5.23 renamed gradient checkpointing to activation checkpointing."""
    new = hasattr(model, "activation_checkpointing_enable")
    getattr(model, f"{'activation' if new else 'gradient'}_checkpointing_enable")()


# Numbers and names that fit nothing in the base.

BEYOND = [
    pytest.param(
        "{name: full, freeze_layers: 3}",
        "freeze_layers is 3, but the base has 2 blocks.",
        id="more blocks than there are",
    ),
    pytest.param(
        "{name: lora, layers_to_transform: [1, 2]}",
        "layers_to_transform names block 2, but the base has 2 blocks, counted from 0.",
        id="a block that is not there",
    ),
    pytest.param(
        "{name: lora-8bit, layers_to_transform: [7]}",
        "layers_to_transform names block 7, but the base has 2 blocks, counted from 0.",
        id="nor there in 8 bits",
    ),
    pytest.param(
        "{name: lora, target_modules: [c_attn, c_poj]}",
        "target_modules names 'c_poj', which is not a weight that LoRA can adapt. Did you mean 'c_proj'? Available: c_attn, c_fc, c_proj, wpe, wte.",
        id="a misspelt module beside a good one",
    ),
    pytest.param(
        "{name: lora, target_modules: [ln_1]}",
        "target_modules names 'ln_1', which is not a weight that LoRA can adapt. Available: c_attn, c_fc, c_proj, wpe, wte.",
        id="a module that is not a matrix",
    ),
    pytest.param(
        "{name: lora-8bit, target_modules: [_proj], layers_to_transform: [1]}",
        "target_modules names '_proj', which is not a weight that LoRA can adapt. Did you mean 'c_proj'? Available: c_attn, c_fc, c_proj, wpe, wte.",
        id="the end of a name",
    ),
]
RECIPE = """\
version: 1
name: frozen
model: {{name_or_path: base, max_length: 32}}
data: {{dataset_name: "bundled:posts", max_train_examples: 16}}
strategy: {strategy}
training: {{use_cpu: true}}
output_dir: run
"""


@pytest.mark.costly
@pytest.mark.parametrize(("strategy", "message"), BEYOND)
def test_what_the_base_does_not_have_is_a_fault_of_the_recipe(
    strategy: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 3, in Python the error of an argument."""
    write_base(tmp_path / "base")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(strategy=strategy), encoding="utf-8")

    code = _exit_code(["run", str(path), "--output", str(tmp_path / "run")])

    assert (code, capsys.readouterr().err.splitlines()[-1]) == (3, f"peftune: {message}")
    with pytest.raises(UsageError) as refused:
        prepared(tmp_path / "base", read_recipe(path).strategy)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            "{name: full, freeze_layers: -1}",
            ":5:24: strategy.freeze_layers: must be greater than or equal to 0 (got -1).",
        ),
        (
            "{name: full, freeze_layers: 1.5}",
            ":5:24: strategy.freeze_layers: must be an integer (got 1.5).",
        ),
        (
            "{name: lora, layers_to_transform: [0, -1]}",
            ":5:49: strategy.layers_to_transform[1]: must be greater than or equal to 0 (got -1).",
        ),
        (
            "{name: lora, layers_to_transform: 1}",
            ":5:24: strategy.layers_to_transform: must be a list (got 1).",
        ),
        (
            "{name: lora, layers_to_transform: []}",
            ":5:45: strategy.layers_to_transform: must have at least 1 entries (got []).",
        ),
    ],
)
def test_what_can_be_no_number_of_a_block_is_told_with_its_place(
    strategy: str, message: str, tmp_path: Path
) -> None:
    """The recipe is refused as it is read."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(strategy=strategy), encoding="utf-8")

    with pytest.raises(RecipeError) as refused:
        read_recipe(path)

    assert str(refused.value) == f"{path}{message}"
