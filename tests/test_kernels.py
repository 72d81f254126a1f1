"""The backward passes written by hand are the gradients, and dropout drops what it says."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import NewGELUActivation

from peftune.fastpath import products
from peftune.fastpath.attention import causal_attention, gelu
from peftune.fastpath.dropout import DropoutMasks, dropped_sum
from peftune.fastpath.linear import (
    GradientBuffers,
    LowRank,
    adapted_linear,
    frozen_linear,
    trainable_linear,
)
from peftune.fastpath.products import (
    Int8,
    Packed,
    Plain,
    Product,
    float32_products,
    gradient_of_weight,
    has_onednn,
    lays_out,
    onednn_gains,
)

CPU = torch.device("cpu")


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw numbers in double precision that ask for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def reseeded(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Let a function with dropout drop the same at every call."""

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(7)
        return function(*tensors, DropoutMasks(CPU))

    return call


def test_gradients_of_a_frozen_linear_map() -> None:
    """Input and bias get theirs; the weight gets none."""
    x, bias, weight = doubles(5, 4), doubles(3, seed=1), doubles(4, 3, seed=2)

    assert gradcheck(lambda x, bias: frozen_linear(x, Plain(weight.detach()), bias), (x, bias))

    frozen_linear(x, Plain(weight.detach()), bias).sum().backward()
    assert weight.grad is None


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_an_adapted_linear_map(dropout: float) -> None:
    """Input, bias and both factors get theirs, of what was not dropped."""
    weight = doubles(4, 6, seed=4).detach()

    def adapted(
        x: torch.Tensor, bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, masks: DropoutMasks
    ) -> torch.Tensor:
        update = LowRank(a, b, 0.5, dropout)
        return adapted_linear(x, Plain(weight), update, bias=bias, masks=masks)

    tensors = (doubles(5, 4), doubles(6, seed=1), doubles(2, 4, seed=2), doubles(6, 2, seed=3))
    assert gradcheck(reseeded(adapted), tensors)


def test_gradients_of_a_learning_linear_map() -> None:
    """Input, weight and bias get theirs."""
    tensors = (doubles(5, 4), doubles(4, 3, seed=1), doubles(3, seed=2))

    assert gradcheck(lambda x, w, b: trainable_linear(x, w, Plain(w.detach()), bias=b), tensors)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_attention(dropout: float) -> None:
    """Queries, keys and values get theirs, of what was not dropped."""

    def attended(projected: torch.Tensor, masks: DropoutMasks) -> torch.Tensor:
        return causal_attention(projected, 2, scaling=0.7, masks=masks, dropout=dropout)

    assert gradcheck(reseeded(attended), (doubles(2, 5, 12),))


@pytest.mark.parametrize("time", [1, 17, 128, 129])
def test_attention_is_torchs_own(time: int) -> None:
    """Short texts go one way and long ones another; both are causal attention."""
    torch.manual_seed(0)
    projected = torch.randn(2, time, 3 * 8)
    query, key, value = projected.view(2, time, 3, 4, 2).permute(2, 0, 3, 1, 4)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.5)

    found = causal_attention(projected, 4, scaling=0.5)

    assert torch.allclose(found, expected.transpose(1, 2).reshape(2, time, 8), atol=1e-6)


@pytest.mark.parametrize("time", [8, 15, 16, 24, 31, 32, 39, 40, 63, 64, 100, 128])
@pytest.mark.parametrize("rows", [1, 40])
def test_attention_in_bfloat16_is_that_of_its_rounded_steps(time: int, rows: int) -> None:
    """Some lengths go through float32, in pieces where there are many rows: no value is another's."""
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(rows, time, 3 * 8, generator=generator).bfloat16().requires_grad_()
    towards = torch.randn(rows, time, 8, generator=generator).bfloat16()
    parts = projected.detach().view(rows, time, 3, 4, 2).permute(2, 0, 3, 1, 4)
    query, key, value = (part.flatten(0, 1) for part in parts)
    future = torch.full((time, time), float("-inf"), dtype=torch.bfloat16).triu_(1)
    shares = torch.softmax(torch.baddbmm(future, query, key.transpose(1, 2), alpha=0.5), -1)
    expected = torch.bmm(shares, value).view(rows, 4, time, 2).transpose(1, 2).flatten(2)
    exact = projected.detach().double().requires_grad_()
    causal_attention(exact, 4, scaling=0.5).backward(towards.double())
    assert exact.grad is not None

    found = causal_attention(projected, 4, scaling=0.5)
    found.backward(towards)

    assert projected.grad is not None
    torch.testing.assert_close(found.detach(), expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(projected.grad.double(), exact.grad, rtol=5e-2, atol=5e-2)


def _packed(weight: torch.Tensor) -> Packed:
    return Packed(lambda: contextlib.nullcontext(weight), tokens=7)


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [Plain, _packed])
def test_every_product_is_the_same_product(
    make: Callable[[torch.Tensor], Product],
    dtype: torch.dtype,
    mkl: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However a weight is laid out, forwards, backwards and for a weight's gradient."""
    if make is _packed and not lays_out(dtype):
        pytest.skip("oneDNN lays out no weight of this type on this processor")
    monkeypatch.setattr(products, "mkl_is_fast", lambda: mkl)
    torch.manual_seed(0)
    x, weight, bias, back = (
        torch.randn(shape).to(dtype) for shape in ((7, 24), (24, 40), (40,), (7, 40))
    )
    product = make(weight)
    close = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]

    pairs = (
        (product.forward(x, bias), x.double() @ weight.double() + bias.double()),
        (product.forward(x, None), x.double() @ weight.double()),
        (product.backward(back), back.double() @ weight.double().T),
        (gradient_of_weight(x, back, dtype), x.double().T @ back.double()),
    )
    for found, expected in pairs:
        assert found.dtype == dtype
        assert torch.allclose(found.double(), expected, atol=close, rtol=close)


@pytest.mark.skipif(not has_onednn(), reason="this torch has no oneDNN")
def test_the_faster_library_is_asked_by_processor_and_by_how_a_weight_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OneDNN has to turn a weight that lies across first, which MKL on an Intel does not."""
    x, along = torch.ones(7, 24), torch.ones(40, 24)
    across = torch.ones(24, 40).t()
    named = set()
    for mkl, expected in ((True, [True, False]), (False, [True, True])):
        monkeypatch.setattr(products, "mkl_is_fast", lambda found=mkl: found)
        assert [onednn_gains(x, weight) for weight in (along, across)] == expected
        assert not onednn_gains(x.bfloat16(), along.bfloat16())
        named.add(float32_products(CPU))
    assert len(named) == 2, "cached scores of one would be taken for those of the other"


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_is_written_into_its_room_and_nothing_else_is_lost(
    dtype: torch.dtype, mkl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anew after each step, added to what is there within one, and never where somebody holds it."""
    monkeypatch.setattr(products, "mkl_is_fast", lambda: mkl)
    torch.manual_seed(0)
    weight, x = torch.randn(24, 40).requires_grad_(), torch.randn(7, 24).to(dtype)
    buffers = GradientBuffers([weight])
    buffer = buffers.of(weight)
    assert buffer is not None
    expected = x.float().sum(0)[:, None].expand(24, 40)
    close = partial(
        torch.testing.assert_close, rtol=0.0, atol=1e-5 if dtype == torch.float32 else 0.1
    )

    def summed(factor: float = 1.0) -> torch.Tensor:
        product = Plain(weight.detach().to(dtype))
        return factor * trainable_linear(x, weight, product, buffer=buffer).float().sum()

    places: set[int] = set()
    for factor in (1.0, -2.0):  # two steps
        weight.grad = None
        summed(factor).backward()
        assert weight.grad is not None
        assert buffer.holds(weight.grad)
        close(weight.grad, factor * expected)
        summed().backward()  # a second part of the step's batch
        close(weight.grad, (factor + 1) * expected)
        places.add(weight.grad.data_ptr())
    assert len(places) == 1

    weight.grad = None
    (summed() + summed(4.0)).backward()  # a weight that is used twice
    close(weight.grad, 5 * expected)

    weight.grad = None
    (first,) = torch.autograd.grad(summed(), weight)
    (second,) = torch.autograd.grad(summed(3.0), weight)
    close(first, expected)
    close(second, 3 * expected)
    assert buffers.of(torch.ones(24, 40)) is None


def test_a_weight_is_laid_out_for_the_ways_that_are_taken() -> None:
    """Once each, and looked at no longer than that takes."""
    reads = []

    @contextlib.contextmanager
    def read() -> Iterator[torch.Tensor]:
        reads.append("begun")
        yield torch.ones(24, 40)
        reads.append("ended")

    product = Packed(read, tokens=7)
    assert not reads

    for times in (1, 1):
        product.backward(torch.ones(7, 40))
        assert reads == ["begun", "ended"] * times
    for times in (2, 2):
        product.forward(torch.ones(7, 24), None)
        assert reads == ["begun", "ended"] * times


@pytest.mark.parametrize("held", [True, False])
def test_the_product_of_int8_codes_rounds_no_code(held: bool) -> None:
    """In bfloat16 too: it holds whole numbers up to 256, and the scale comes afterwards."""
    torch.manual_seed(0)
    codes = torch.randint(-127, 128, (40, 24), dtype=torch.int8)
    scale = torch.rand(40) / 100
    x, back = torch.randn(7, 24), torch.randn(7, 40)
    weight = (codes.double() * scale.double()[:, None]).T

    product = Int8(codes, scale, _packed(codes.float().t()) if held else None)

    assert torch.allclose(product.forward(x, None).double(), x.double() @ weight, atol=1e-5)
    assert torch.allclose(product.backward(back).double(), back.double() @ weight.T, atol=1e-5)
    assert torch.equal(codes.to(torch.bfloat16).to(torch.int8), codes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(
    probability: float, dtype: torch.dtype
) -> None:
    """Over many passes the share is right to five standard errors, and in each the mean stays."""
    torch.manual_seed(0)
    draws, count = 300, 5_003
    drawn = [DropoutMasks(CPU).draw((count,), probability, dtype) for _ in range(draws)]
    shares = torch.tensor([1.0 / kept.scale for kept in drawn]).double()
    stay = torch.stack([kept.of(torch.ones(count, dtype=dtype)) for kept in drawn]).double()

    assert set(stay.unique().tolist()) == {0.0, 1.0}
    chance = probability * (1 - probability)
    assert abs(stay.mean() - shares.mean()) < 5 * (chance / draws / count) ** 0.5
    rounding = 0.25 / 256**2 / draws
    assert abs(float(shares.mean()) - (1 - probability)) <= 5 * rounding**0.5
    assert set((256 * shares).round().tolist()) <= {
        float(math.floor(256 * (1 - probability))),
        float(math.ceil(256 * (1 - probability))),
    }


def test_what_stays_is_as_it_was() -> None:
    """To the bit, in every type, and in any order of memory."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        values = torch.randn(30, 20, generator=torch.Generator().manual_seed(0)).to(dtype).t()
        kept = DropoutMasks(CPU).draw(values.shape, 0.5, dtype)
        found = kept.of(values)
        assert torch.equal(found[found != 0], values[found != 0])
        assert 200 < int((found == 0).sum()) < 400


def test_dropout_follows_torchs_seed_and_goes_on() -> None:
    """The same seed drops the same; a second draw of one pass, and another pass, drop otherwise."""

    def drawn(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        first, second = DropoutMasks(CPU), DropoutMasks(CPU)
        return [masks.draw((50, 40), 0.5, torch.float32).bits for masks in (first, first, second)]

    first, again, other = drawn(0), drawn(0), drawn(1)

    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    every = [*first, *other]
    assert not any(torch.equal(a, b) for i, a in enumerate(every) for b in every[:i])


def test_the_activation_and_its_derivative_are_exact_in_float32() -> None:
    """Of numbers of every size, to some units of the last place of the numbers around it."""
    small = torch.logspace(-8, 1, 400)
    x = torch.cat([-small, torch.zeros(1), small, torch.linspace(-40, 40, 4_001)]).requires_grad_()
    exact = x.detach().double().requires_grad_()

    found, wanted = gelu(x), torch.nn.functional.gelu(exact, approximate="tanh")
    found.sum().backward()
    wanted.sum().backward()

    assert x.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", [(3, 5), (200, 64)])
def test_the_activation_is_gpt2s_in_bfloat16_too(shape: tuple[int, int]) -> None:
    """As near to the exact one as the eight steps of transformers are, and so is its gradient."""
    x = (2.0 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).bfloat16()

    def off(function: Callable[[torch.Tensor], torch.Tensor]) -> tuple[float, float]:
        own, exact = (x.clone().to(t).requires_grad_() for t in (torch.bfloat16, torch.float64))
        found, wanted = function(own), torch.nn.functional.gelu(exact, approximate="tanh")
        found.sum().backward()
        wanted.sum().backward()
        assert own.grad is not None
        assert exact.grad is not None
        apart = (found.detach().double() - wanted.detach(), own.grad.double() - exact.grad)
        return float(apart[0].abs().mean()), float(apart[1].abs().mean())

    for ours, stock in zip(off(gelu), off(NewGELUActivation()), strict=True):
        assert ours < 1.05 * stock


def test_the_activation_is_torchs_in_float32() -> None:
    """Where nothing learns, torch's own is called, which needs no memory beside its outcome."""
    x = torch.linspace(-6, 6, 101)
    assert torch.equal(gelu(x), torch.nn.functional.gelu(x, approximate="tanh"))


def test_a_dropped_sum_drops_from_the_update_alone() -> None:
    """What is dropped leaves the stream as it is; gradients go where values went."""
    torch.manual_seed(0)
    stream, update = (
        torch.zeros(40, 30, requires_grad=True),
        torch.ones(40, 30, requires_grad=True),
    )

    found = dropped_sum(stream, update, DropoutMasks(CPU), 0.25)
    found.sum().backward()

    assert update.grad is not None
    assert stream.grad is not None
    assert torch.equal(found, update.grad)
    assert torch.equal(stream.grad, torch.ones(40, 30))
    assert found.detach().unique().tolist() == pytest.approx([0.0, 4 / 3])
