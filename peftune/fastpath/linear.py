"""Linear maps with hand-written backward passes, and the buffers that their gradients are written into."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import Function

from peftune.fastpath.dropout import DropoutMasks, Kept
from peftune.fastpath.products import Product, gradient_of_weight


class GradientBuffer:
    """The memory of one weight's gradient, from step to step."""

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None
        self._given: weakref.ref[torch.Tensor] | None = None

    def take(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Give the memory for a gradient, with whatever stands in it; None while it is in use.

        It is in use as long as the weight has a gradient, to which further ones are added, and while
        somebody holds what was given: autograd, until a weight that is used twice has its second gradient,
        or whoever asked `torch.autograd.grad`. A backward pass that is itself recorded gets none.

        Args:
            weight: whose gradient is to be written, a leaf without gaps.
        """
        held = self._given is not None and self._given() is not None
        if held or weight.grad is not None or torch.is_grad_enabled():
            return None
        if self._memory is None:
            self._memory = torch.empty_like(weight, requires_grad=False)
        # Another tensor over the same memory: autograd makes a gradient its own only if nobody holds it.
        given = self._memory.detach()
        self._given = weakref.ref(given)
        return given

    def holds(self, gradient: torch.Tensor) -> bool:
        """Say whether a gradient lies in this memory."""
        return self._memory is not None and self._memory.data_ptr() == gradient.data_ptr()


class GradientBuffers:
    """A buffer for each of some weights.

    Args:
        weights: trainable weights; they stay alive as long as this.
    """

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        self._found = {id(weight): (weight, GradientBuffer()) for weight in weights}

    def of(self, weight: torch.Tensor) -> GradientBuffer | None:
        """Return the buffer of a weight; None if it has none."""
        found = self._found.get(id(weight))
        return None if found is None else found[1]


@dataclass(frozen=True, slots=True)
class LowRank:
    """A low-rank update beside a weight.

    Args:
        down: `A`, (rank, inputs).
        up: `B`, (outputs, rank).
        scale: what the update is multiplied by.
        dropout: share of its inputs that is dropped while training.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    dropout: float = 0.0


class _Frozen(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        x: torch.Tensor,
        bias: torch.Tensor | None,
        product: Product,
    ) -> torch.Tensor:
        ctx.product = product
        ctx.bias_dtype = None if bias is None else bias.dtype
        return product.forward(x, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # noqa: ANN401
        needs_x, needs_bias, _ = ctx.needs_input_grad
        gradient = gradient.contiguous()
        back = ctx.product.backward(gradient) if needs_x else None
        return back, _summed(gradient, ctx.bias_dtype) if needs_bias else None, None


@dataclass(frozen=True, slots=True)
class _Work:
    product: Product
    scale: float
    kept: Kept | None


class _Adapted(Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes tensors by place
        ctx: Any,  # noqa: ANN401 - torch's context
        x: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        work: _Work,
    ) -> torch.Tensor:
        a, b, kept = down.to(x.dtype), up.to(x.dtype), work.kept
        found = work.product.forward(x, None if bias is None else bias.to(x.dtype))
        inner = (x if kept is None else kept.of(x)) @ a.t()  # (tokens, rank)
        ctx.scale = work.scale if kept is None else work.scale * kept.scale
        found.addmm_(inner, b.t(), alpha=ctx.scale)
        ctx.save_for_backward(x, inner, a, b, *(() if kept is None else (kept.bits,)))
        ctx.product = work.product
        ctx.dtypes = (None if bias is None else bias.dtype, down.dtype, up.dtype)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # noqa: ANN401
        x, inner, a, b, *bits = ctx.saved_tensors
        kept = Kept(bits[0], ctx.scale) if bits else None
        needs_x, needs_bias, needs_down, needs_up = ctx.needs_input_grad[:4]
        bias_dtype, down_dtype, up_dtype = ctx.dtypes
        gradient = gradient.contiguous()
        towards = gradient @ b  # (tokens, rank)
        up = None
        if needs_up:
            up = (inner.t() @ gradient).t().to(up_dtype).contiguous().mul_(ctx.scale)
        down = None
        if needs_down:
            seen = x if kept is None else kept.of(x)
            down = (towards.t() @ seen).to(down_dtype).mul_(ctx.scale)
        back = None
        if needs_x:
            back = ctx.product.backward(gradient)
            if kept is None:
                back.addmm_(towards, a, alpha=ctx.scale)
            else:
                back.add_(kept.of(towards @ a), alpha=ctx.scale)
        bias = _summed(gradient, bias_dtype) if needs_bias else None
        return back, bias, down, up, None


class _Trainable(Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes tensors by place
        ctx: Any,  # noqa: ANN401 - torch's context
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        product: Product,
        buffer: GradientBuffer | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.product = product
        ctx.weight, ctx.buffer = weight, buffer
        ctx.bias_dtype = None if bias is None else bias.dtype
        return product.forward(x, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        gradient = gradient.contiguous()
        back = ctx.product.backward(gradient) if needs_x else None
        weight = None
        if needs_weight:
            into = None if ctx.buffer is None else ctx.buffer.take(ctx.weight)
            weight = gradient_of_weight(x, gradient, ctx.weight.dtype, into=into)
        bias = _summed(gradient, ctx.bias_dtype) if needs_bias else None
        return back, weight, bias, None, None


def frozen_linear(
    x: torch.Tensor, product: Product, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `x W + b` with a weight that gets no gradient; a bias may be trainable.

    Args:
        x: (tokens, inputs).
        product: of the weight.
        bias: (outputs,).
    """
    found: torch.Tensor = _Frozen.apply(x, bias, product)
    return found


def adapted_linear(
    x: torch.Tensor,
    product: Product,
    update: LowRank,
    *,
    bias: torch.Tensor | None = None,
    masks: DropoutMasks | None = None,
) -> torch.Tensor:
    """Return `x W + b + s dropout(x) Aᵀ Bᵀ` with a frozen weight and a trainable update.

    Args:
        x: (tokens, inputs).
        product: of the weight.
        update: what is trainable.
        bias: (outputs,).
        masks: of this pass; None drops nothing.

    References:
        Hu et al. 2021, LoRA, arXiv:2106.09685, equation 3.
    """
    dropped = update.dropout if masks else 0.0
    kept = masks.draw(x.shape, dropped, x.dtype) if masks and dropped > 0 else None
    work = _Work(product, update.scale, kept)
    found: torch.Tensor = _Adapted.apply(x, bias, update.down, update.up, work)
    return found


def trainable_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    product: Product,
    *,
    bias: torch.Tensor | None = None,
    buffer: GradientBuffer | None = None,
) -> torch.Tensor:
    """Return `x W + b` with a trainable weight.

    Args:
        x: (tokens, inputs).
        weight: (inputs, outputs): who gets the gradient, in its own type.
        product: of the weight as it is now, in the type of `x`.
        bias: (outputs,).
        buffer: where the weight's gradient is written; None takes new memory.
    """
    found: torch.Tensor = _Trainable.apply(x, weight, bias, product, buffer)
    return found


def _summed(gradient: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return gradient.sum(0, dtype=dtype)
