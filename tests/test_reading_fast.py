"""Reading with quicker products: the same mathematics, whatever lies around it, and nothing left."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import GPT2Model
from transformers.pytorch_utils import Conv1D

from peftune.fastpath import products
from peftune.fastpath.products import Plain
from peftune.fastpath.scoring import product, reading_fast


@pytest.fixture
def backbone(tiny_base: Path) -> GPT2Model:
    """Load a backbone in eval mode, float32, whose biases are not zero."""
    backbone: GPT2Model = GPT2Model.from_pretrained(tiny_base, dtype=torch.float32)
    backbone.eval()
    generator = torch.Generator().manual_seed(1)
    for weight in backbone.parameters():
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return backbone


def _tokens(rows: int = 3, time: int = 101) -> torch.Tensor:
    return torch.randint(8192, (rows, time), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 256, 257, 700])
def test_a_product_of_many_rows_is_that_of_torch(
    rows: int, mkl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows there are, padded or cut: no row is lost, and none is another's."""
    monkeypatch.setattr(products, "mkl_is_fast", lambda: mkl)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 48), torch.randn(48, 80), torch.randn(80)

    torch.testing.assert_close(product(x, weight, bias), torch.addmm(bias, x, weight))
    torch.testing.assert_close(product(x, weight), x @ weight)


def test_products_have_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """OneDNN keeps machine code for each shape, so batches of every size must not have one each."""
    shapes: set[int] = set()
    stock = Plain.forward

    def noted(self: Plain, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        shapes.add(len(x))
        return stock(self, x, bias)

    monkeypatch.setattr(products, "mkl_is_fast", lambda: False)
    monkeypatch.setattr(Plain, "forward", noted)
    weight = torch.randn(8, 8)

    for rows in range(1, 1200, 7):
        product(torch.randn(rows, 8), weight)

    assert shapes == {64, 128, 192, 256}


def test_the_states_are_those_of_transformers(backbone: GPT2Model) -> None:
    """Up to rounding; and the model has its own forward again afterwards."""
    tokens = _tokens()
    with torch.inference_mode():
        plainly = backbone(tokens, use_cache=False).last_hidden_state
        with reading_fast(backbone):
            fast = backbone(tokens, use_cache=False).last_hidden_state
        again = backbone(tokens, use_cache=False).last_hidden_state

    torch.testing.assert_close(fast, plainly, rtol=1e-4, atol=1e-4)
    assert torch.equal(again, plainly)
    assert not any("forward" in vars(module) for module in backbone.modules())


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("rows", [1, 300, 5000])
def test_who_reads_takes_as_many_rows_at_a_time(
    rows: int, mkl: bool, backbone: GPT2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row's last bits depend on its neighbors, so a map alone and one in an MLP have the same."""
    taken: list[tuple[tuple[int, ...], int]] = []
    stock = Plain.forward

    def noted(self: Plain, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        taken.append((tuple(self._weight.shape), len(x)))
        return stock(self, x, bias)

    monkeypatch.setattr(products, "mkl_is_fast", lambda: mkl)
    monkeypatch.setattr(Plain, "forward", noted)
    blocks: Any = backbone.h
    mlp, states = blocks[0].mlp, torch.randn(1, rows, backbone.config.n_embd)
    with torch.inference_mode(), reading_fast(backbone):
        mlp(states)
    together = sorted(taken)
    taken.clear()
    mlp.c_proj.register_forward_pre_hook(lambda *_: None)

    with torch.inference_mode(), reading_fast(backbone):
        mlp(states)

    assert len(together) == 2 * -(-rows // (2048 if mkl else 256))
    assert together == sorted(taken)


@pytest.mark.parametrize("rows", [3, 25])
@pytest.mark.parametrize("kind", ["lora", "ia3", "none"])
def test_an_adapter_that_adds_nothing_changes_no_bit(
    kind: str, rows: int, backbone: GPT2Model
) -> None:
    """Around each map lies what a strategy put there; switched off or zero, it is the base exactly."""
    tokens = _tokens(rows)
    with torch.inference_mode(), reading_fast(backbone):
        base = backbone(tokens, use_cache=False).last_hidden_state
    configs: dict[str, Any] = {
        "lora": peft.LoraConfig(target_modules="all-linear", fan_in_fan_out=True),
        "ia3": peft.IA3Config(
            target_modules=["c_attn", "c_fc"], feedforward_modules=["c_fc"], fan_in_fan_out=True
        ),
    }
    model: Any = (
        backbone if kind == "none" else peft.get_peft_model(backbone, configs[kind]).eval()
    )

    with torch.inference_mode(), reading_fast(model):
        states = model(input_ids=tokens, use_cache=False).last_hidden_state
        if kind != "none":
            with model.disable_adapter():
                off = model(input_ids=tokens, use_cache=False).last_hidden_state
            assert torch.equal(off, base)

    assert torch.equal(states, base)


@pytest.mark.parametrize("further", [{}, {"use_dora": True}, {"lora_bias": True}])
def test_what_lora_adds_is_what_peft_adds(further: dict[str, Any], backbone: GPT2Model) -> None:
    """In place where it is a plain one; variants of LoRA go their own way."""
    config = peft.LoraConfig(
        target_modules="all-linear", fan_in_fan_out=True, lora_dropout=0.3, lora_alpha=5, **further
    )
    model: Any = peft.get_peft_model(backbone, config).eval()
    generator = torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    tokens = _tokens()
    with torch.inference_mode():
        plainly = model(input_ids=tokens, use_cache=False).last_hidden_state
        with model.disable_adapter():
            base = model(input_ids=tokens, use_cache=False).last_hidden_state

    with torch.inference_mode(), reading_fast(model):
        fast = model(input_ids=tokens, use_cache=False).last_hidden_state

    torch.testing.assert_close(fast, plainly, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fast, base, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("rows", [1, 9])
def test_what_looks_at_a_map_changes_no_bit(rows: int, backbone: GPT2Model) -> None:
    """Both maps of an MLP are taken in one where nobody looks between them, and bit for bit the same."""
    tokens, seen = _tokens(rows), []
    blocks: Any = backbone.h
    with torch.inference_mode(), reading_fast(backbone):
        alone = backbone(tokens, use_cache=False).last_hidden_state
    for block in blocks:
        block.mlp.c_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))

    with torch.inference_mode(), reading_fast(backbone):
        watched = backbone(tokens, use_cache=False).last_hidden_state

    assert [tuple(shape) for shape in seen] == [(rows, 101, 4 * backbone.config.n_embd)] * len(
        backbone.h
    )
    assert torch.equal(watched, alone)


def test_a_forward_that_was_put_on_a_map_comes_back(backbone: GPT2Model) -> None:
    """Also inside another reading, and after a failure."""
    first: Any = next(module for module in backbone.modules() if type(module) is Conv1D)
    own = vars(first)["forward"] = first.forward
    with contextlib.suppress(ZeroDivisionError), reading_fast(backbone):
        inside = vars(first)["forward"]
        with reading_fast(backbone):
            pass
        assert vars(first)["forward"] is inside
        raise ZeroDivisionError

    assert inside is not own
    assert vars(first)["forward"] is own
