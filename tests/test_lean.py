"""The fast forward computes what transformers' own computes, and leaves no trace."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bases import write_base
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel

import peftune
from peftune.errors import GuardError
from peftune.fastpath import forward as backbones
from peftune.fastpath import linear_maps
from peftune.fastpath.linear_maps import Computing, InType, LinearMap
from peftune.fastpath.products import Packed, lays_out
from peftune.models.architecture import (
    backbone_of,
    head_of,
    label_count,
    trainable_parameters,
    unwrapped,
)
from peftune.models.prepare import prepare_model, refuse_changed_base
from peftune.recipe.task_type import TaskName
from peftune.strategies import Strategy
from peftune.training.fast_path import fast_forward, held_in_bfloat16

CPU = torch.device("cpu")
FLOAT = Computing(torch.float32, CPU)
TEXTS = ["ab", "a longer text than that", "", "the last one, of middling length", "x"]


class LearnedBiases(Strategy):
    """A strategy of another package: biases learn, those of layer norms too."""

    name = "learned-biases"

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Let biases learn."""
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.endswith("bias") or name == "score.weight")
        return model


STRATEGIES: dict[str, Strategy] = {
    "full": peftune.Full(),
    "full above a frozen block": peftune.Full(freeze_layers=1),
    "head-only": peftune.HeadOnly(),
    "lora": peftune.LoRA(lora_dropout=0.0),
    "lora on c_attn": peftune.LoRA(r=3, target_modules=("c_attn",), lora_dropout=0.0),
    "lora in one block": peftune.LoRA(layers_to_transform=(1,), lora_dropout=0.0),
    "rank-stabilized lora": peftune.LoRA(use_rslora=True, lora_dropout=0.0),
    "dora": peftune.LoRA(use_dora=True, lora_dropout=0.0),
    "lora-8bit": peftune.LoRA8bit(lora_dropout=0.0),
    "another package's": LearnedBiases(),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a base whose dropout is on."""
    return str(write_base(tmp_path_factory.mktemp("fast") / "base"))


def prepared(base: str, strategy: Strategy, labels: int = 3) -> nn.Module:
    """Prepare a model, and move what learns away from its start."""
    model = prepare_model(
        base, strategy, labels=[str(i) for i in range(labels)], max_length=64, use_cpu=True
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    return model


def batch_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Pad texts of several lengths on the right, with labels."""
    ids = [list(text.encode())[:60] for text in TEXTS]
    longest = max(map(len, ids))
    rows = [[byte + 1 for byte in row] + [0] * (longest - len(row)) for row in ids]
    mask = [[1] * max(1, len(row)) + [0] * (longest - max(1, len(row))) for row in ids]
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.tensor(mask),
        "labels": torch.arange(len(TEXTS)) % label_count(model),
    }


def without_dropout(model: nn.Module) -> nn.Module:
    """Set every dropout to zero, and leave the model in train mode."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


def step(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss, the logits and the gradients of a batch."""
    model.zero_grad(set_to_none=True)
    found = model(**batch_of(model))
    found.loss.backward()
    learning = trainable_parameters(model)
    return (
        found.loss.detach(),
        found.logits.detach(),
        {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
            for name, weight in learning.items()
        },
    )


def largest_difference(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference of two sets of gradients, relative to the largest one."""
    largest = max(float(value.abs().max()) for value in one.values())
    assert largest > 0
    return max(float((one[name] - two[name]).abs().max()) for name in one) / largest


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("pack", [False, True])
def test_loss_logits_and_gradients_are_the_models_own(base: str, name: str, pack: bool) -> None:
    """In float32 up to rounding, whatever learns, however weights are held."""
    model = without_dropout(prepared(base, STRATEGIES[name]))
    loss, logits, gradients = step(model)

    computing = Computing(torch.float32, CPU, pack=pack, pack_codes=pack)
    with fast_forward(model, computing) as why:
        assert why is None
        fast_loss, fast_logits, fast_gradients = step(model)

    assert float((loss - fast_loss).abs()) < 1e-5 * float(loss)
    assert float((logits - fast_logits).abs().max()) < 1e-5 * max(1.0, float(logits.abs().max()))
    assert largest_difference(gradients, fast_gradients) < 1e-5
    again = step(model)
    assert torch.equal(again[1], logits)


def test_weights_are_laid_out_where_that_gains(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a few tokens, not for many where MKL is as fast, and not without the memory."""
    model = prepared(base, STRATEGIES["lora"])
    monkeypatch.setattr(linear_maps, "has_onednn", lambda: True)
    monkeypatch.setattr(linear_maps, "lays_out", lambda _: True)

    def packs(tokens: float, *, bf16: bool = False) -> bool:
        return Computing.of(backbone_of(model).h, bf16=bf16, tokens=tokens).pack

    for mkl in (True, False):
        monkeypatch.setattr(linear_maps, "mkl_is_fast", lambda found=mkl: found)
        assert [packs(47), packs(48), packs(399)] == [False, True, True]
        assert [packs(400), packs(400, bf16=True)] == [not mkl, True]
        assert Computing.of(backbone_of(model).h, bf16=False, tokens=400).pack_codes
    little = SimpleNamespace(available=2**20)
    with monkeypatch.context() as patch:
        patch.setattr(linear_maps, "psutil", SimpleNamespace(virtual_memory=lambda: little))
        assert not packs(48)
    monkeypatch.setattr(linear_maps, "lays_out", lambda dtype: dtype != torch.bfloat16)
    assert [packs(48), packs(48, bf16=True)] == [True, False]


@contextlib.contextmanager
def given(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """Let a weight be looked at."""
    yield weight


def test_what_is_laid_out_is_multiplied_on_this_processor() -> None:
    """In each type that is said to be; of bfloat16 not every processor lays weights out."""
    weight = torch.randn(64, 32)
    for dtype in (torch.float32, torch.bfloat16):
        if lays_out(dtype):
            packed = Packed(functools.partial(given, weight.to(dtype)), tokens=48)
            assert packed.forward(torch.ones(48, 64, dtype=dtype), None).dtype == dtype
            assert packed.backward(torch.ones(48, 32, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", ["full", "lora", "lora-8bit", "dora", "another package's"])
def test_gradients_in_bfloat16_point_the_same_way(base: str, name: str) -> None:
    """Rounding to bfloat16 turns the gradient by less than two degrees."""
    model = without_dropout(prepared(base, STRATEGIES[name]))
    _, _, gradients = step(model)

    with fast_forward(model, Computing(torch.bfloat16, CPU)):
        _, logits, rounded = step(model)

    assert logits.dtype == torch.float32
    one, two = (torch.cat([g[n].flatten() for n in gradients]) for g in (gradients, rounded))
    assert float(torch.cosine_similarity(one, two, dim=0)) > 0.999
    assert not torch.equal(one, two)


@pytest.mark.parametrize("kind", ["regression", "multi-label"])
def test_losses_of_other_tasks_are_the_models_own(base: str, kind: TaskName) -> None:
    """A regression and a multi-label task too."""
    labels = ["n"] if kind == "regression" else ["a", "b"]
    model = without_dropout(
        prepare_model(
            base, STRATEGIES["lora"], labels=labels, task=kind, max_length=64, use_cpu=True
        )
    )
    batch = batch_of(model)
    numbers = torch.linspace(-1, 1, len(TEXTS))
    batch["labels"] = (
        numbers if kind == "regression" else torch.stack([numbers > 0, numbers < 0], 1).float()
    )
    own = model(**batch)

    with fast_forward(model, FLOAT):
        fast = model(**batch)

    assert torch.allclose(own.loss, fast.loss, rtol=1e-5)
    assert torch.allclose(own.logits, fast.logits, atol=1e-5)


def test_the_last_hidden_states_are_the_models_own(base: str) -> None:
    """What a language-model loss reads: of all tokens but the padding."""
    model = without_dropout(prepared(base, STRATEGIES["lora"])).eval()
    batch = batch_of(model)
    own = model(**batch, output_hidden_states=True)

    with fast_forward(model, FLOAT):
        fast = model(**batch, output_hidden_states=True)

    real = batch["attention_mask"].bool()
    assert torch.allclose(own.hidden_states[-1][real], fast.hidden_states[-1][real], atol=1e-5)
    assert torch.allclose(own.logits, fast.logits, atol=1e-5)


def test_dropout_acts_while_training_alone_and_can_be_left_out(base: str) -> None:
    """Of the base by a switch; of the adapter by its own field."""
    model = prepared(base, peftune.LoRA(lora_dropout=0.0)).train()
    batch = batch_of(model)
    expected = model.eval()(**batch).logits

    with fast_forward(model, FLOAT, dropout=False):
        assert torch.allclose(model.train()(**batch).logits, expected, atol=1e-5)
    with fast_forward(model, FLOAT):
        dropped = [model.train()(**batch).logits for _ in range(2)]
        assert torch.allclose(model.eval()(**batch).logits, expected, atol=1e-5)
        torch.manual_seed(3)
        once = model.train()(**batch).logits
        torch.manual_seed(3)
        assert torch.equal(model(**batch).logits, once)
    assert not torch.allclose(dropped[0], expected, atol=1e-3)
    assert not torch.allclose(dropped[0], dropped[1], atol=1e-3)


def test_dropout_is_right_in_the_mean(base: str) -> None:
    """A thousand passes of either forward have the same mean logits, to five standard errors."""
    model = prepared(base, peftune.LoRA(lora_dropout=0.3)).train()
    batch = {
        name: tensor[:2].repeat(500, 1)
        for name, tensor in batch_of(model).items()
        if name != "labels"
    }
    with torch.no_grad():
        torch.manual_seed(0)
        own = model(**batch).logits.view(500, 2, -1)
        with fast_forward(model, FLOAT):
            fast = model(**batch).logits.view(500, 2, -1)

    error = (own.var(0) / 500 + fast.var(0) / 500).sqrt()
    assert float(((own.mean(0) - fast.mean(0)) / error).abs().max()) < 5
    assert float((own.std(0) / fast.std(0)).log().abs().max()) < 0.2


def test_an_int8_base_is_evaluated_by_its_own_forward(base: str) -> None:
    """Its numbers are what is reported, so what chooses a checkpoint is of the same kind."""
    model = without_dropout(prepared(base, STRATEGIES["lora-8bit"]))
    batch = batch_of(model)
    own = model.eval()(**batch).logits

    with fast_forward(model, FLOAT):
        assert torch.equal(model.eval()(**batch).logits, own)
        assert not torch.equal(model.train()(**batch).logits, own)


def test_a_switched_off_adapter_stays_switched_off(base: str) -> None:
    """Inside, as for the model's own forward."""
    model = without_dropout(prepared(base, STRATEGIES["lora"])).eval()
    batch = batch_of(model)
    with model.disable_adapter():  # type: ignore[operator]
        expected = model(**batch).logits

    with fast_forward(model, FLOAT), model.disable_adapter():  # type: ignore[operator]
        found = model(**batch).logits

    assert torch.allclose(found, expected, atol=1e-5)


@pytest.fixture
def planted(base: str, request: pytest.FixtureRequest) -> nn.Module:
    """Prepare a model with something that the fast forward would pass over."""
    model = prepared(base, STRATEGIES["full"])
    backbone: Any = backbone_of(model)
    if request.param == "a hook":
        backbone.h[1].mlp.register_forward_hook(lambda *_: None)
    elif request.param == "relu":
        backbone.config.activation_function = "relu"
    elif request.param == "another block":
        backbone.h[0].__class__ = type("Own", (type(backbone.h[0]),), {})
    elif request.param == "virtual tokens":
        model = get_peft_model(
            unwrapped(model), PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2)
        )
    return model


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("a hook", "'h.1.mlp' has a hook, which must see what passes"),
        ("relu", "activation_function is relu"),
        ("another block", "a block consists of Own, GPT2Attention, GPT2MLP"),
        ("virtual tokens", "the strategy puts tokens in front of the text"),
    ],
    indirect=["planted"],
)
def test_what_it_would_pass_over_keeps_the_models_own_forward(
    planted: nn.Module, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says why."""
    with caplog.at_level(logging.INFO), fast_forward(planted, FLOAT) as why:
        assert why == reason
        assert "forward" not in vars(unwrapped(planted))

    assert f"training uses the model's own forward: {reason}" in caplog.messages


def test_arguments_that_it_does_not_know_go_to_the_models_own_forward(base: str) -> None:
    """Such as embeddings instead of tokens, and positions."""
    model = without_dropout(prepared(base, STRATEGIES["lora"])).eval()
    batch = batch_of(model)
    embedded = backbone_of(model).wte(batch["input_ids"])
    positions = torch.arange(batch["input_ids"].shape[1]).flip(0)[None]
    own = [model(inputs_embeds=embedded).logits, model(**batch, position_ids=positions).logits]

    with fast_forward(model, FLOAT):
        fast = [
            model(inputs_embeds=embedded).logits,
            model(**batch, position_ids=positions).logits,
        ]

    assert all(torch.equal(one, two) for one, two in zip(own, fast, strict=True))


def test_a_recomputing_model_keeps_its_own_forward(base: str) -> None:
    """Activation checkpointing holds for the model's own blocks."""
    model = without_dropout(prepared(base, STRATEGIES["full"]))
    _, _, expected = step(model)
    inner = unwrapped(model)
    # Transformers 5.23 renamed it.
    name = "activation_checkpointing_enable"
    switch = getattr(inner, name, None) or inner.gradient_checkpointing_enable
    switch({"use_reentrant": False})

    with fast_forward(model, FLOAT):
        _, _, gradients = step(model)

    assert all(torch.equal(expected[name], gradients[name]) for name in expected)


def test_a_frozen_weight_saves_no_input(base: str) -> None:
    """What autograd keeps for the backward pass is under a third of the model's own."""

    def saved(model: nn.Module) -> int:
        own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(**batch_of(model)).loss
        assert loss.requires_grad
        return sum(kept.values())

    model = prepared(base, peftune.LoRA(target_modules=("c_attn",), lora_dropout=0.0)).train()
    before = saved(model)

    with fast_forward(model, FLOAT):
        assert saved(model) < before / 3


def test_a_frozen_base_leaves_memory_where_copies_of_it_are_computed_with(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are read once for the copies, and not held twice."""
    released: list[torch.Tensor] = []
    monkeypatch.setattr(linear_maps, "release_mapped", released.extend)
    model = prepared(base, STRATEGIES["lora"])
    frozen = {
        weight.data_ptr()
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and ".h." in name and not weight.requires_grad
    }

    with fast_forward(model, FLOAT):
        step(without_dropout(model))
    assert not released
    with fast_forward(model, Computing(torch.bfloat16, CPU)):
        step(without_dropout(model))

    assert {weight.data_ptr() for weight in released} == frozen
    assert len(released) == len(frozen)


def test_held_weights_are_bfloat16_inside_and_the_same_bits_afterwards(base: str) -> None:
    """Frozen ones of the backbone; what learns, and the head, stay in float32."""
    model = prepared(base, STRATEGIES["lora"])
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    with held_in_bfloat16(model) as held:
        assert held
        kinds = {weight.requires_grad: weight.dtype for weight in backbone_of(model).parameters()}
        assert kinds == {False: torch.bfloat16, True: torch.float32}
        assert {weight.dtype for weight in head_of(model).parameters()} == {torch.float32}
        with fast_forward(model, Computing(torch.bfloat16, CPU)):
            step(without_dropout(model))

    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    refuse_changed_base(model)


def test_frozen_weights_that_are_not_the_bases_are_not_touched(base: str) -> None:
    """They could not be read again."""
    model = prepared(base, STRATEGIES["lora"])
    weight = backbone_of(model).ln_f.weight
    weight.data[0] += 1.0

    with held_in_bfloat16(model) as held:
        assert not held
        assert weight.dtype == torch.float32
    with pytest.raises(GuardError):
        refuse_changed_base(model)


def test_a_table_that_is_only_read_is_given_back_now_and_then(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token's page comes in with its neighbors; a table that learns is left alone."""
    released: list[int] = []
    monkeypatch.setattr(
        backbones, "release_mapped", lambda tables: released.append(len(list(tables)))
    )
    for strategy, count in (("lora", 2), ("full", 0)):
        model = prepared(base, STRATEGIES[strategy])
        with fast_forward(model, FLOAT), torch.no_grad():
            for _ in range(2 * backbones._PASSES):
                model(**batch_of(model))
        assert released == [count, count]
        released.clear()


def test_what_was_freed_is_given_back_before_a_larger_pass_of_small_batches(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And between learning and scoring; a large batch keeps what it has, and so does one met before."""
    released: list[int] = []
    model = prepared(base, STRATEGIES["lora"]).eval()
    monkeypatch.setattr(backbones, "release_freed", lambda: released.append(1))

    def freed(*lengths: int) -> list[bool]:
        found = []
        for length in lengths:
            before = len(released)
            model(input_ids=torch.ones((4, length), dtype=torch.int64))
            found.append(len(released) > before)
        return found

    with fast_forward(model, FLOAT), torch.no_grad():
        assert freed(8, 4, 9, 8) == [True, False, True, False]
        assert freed(4, 8, 4, 12) == [False] * 4
        assert freed(60, 64, 8, 64) == [True, False, False, False]
        model.train()
        assert freed(64, 64) == [True, False]


@pytest.mark.parametrize("learns", [False, True])
def test_a_small_weight_is_cast_once_if_it_does_not_change(learns: bool) -> None:
    """One that learns is cast as it is at each use, and gets its gradient."""
    weight = nn.Parameter(torch.ones(3), requires_grad=learns)
    cast = InType(weight)
    with torch.inference_mode():
        first = cast(torch.bfloat16)
    second = cast(torch.bfloat16)

    assert (first is second) is not learns
    assert not second.is_inference()
    assert second.requires_grad is learns
    assert cast(torch.float32).dtype == torch.float32


def test_an_unknown_module_is_called_as_it_is() -> None:
    """In autocast where bfloat16 is computed in."""

    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.eye(3).mul(2)

    found = LinearMap(Doubled(), Computing(torch.bfloat16, CPU))(torch.ones(2, 3).bfloat16(), None)

    assert found.dtype == torch.bfloat16
    assert torch.equal(found.float(), torch.full((2, 3), 2.0))
