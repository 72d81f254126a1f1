"""Kernels of a block: causal attention over right-padded texts, and GELU."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch.autograd import Function
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from peftune.fastpath.dropout import DropoutMasks, Kept

_SHORT = 128
"""Tokens up to which all scores are held. Torch's fused kernel for a CPU takes ten times as long on
texts of twenty tokens; on long ones it wins, and what it need not hold counts."""

_LANES = 16
_SLOW_TAIL = 8
"""Torch's softmax takes bfloat16 in steps of 32 values on a CPU, and what is left of a row one by one,
at five times the price of float32, in whose steps of 16 it computes anyway."""

_AT_ONCE = 1 << 17
"""Scores that are made float32 at a time, so that they stay in a core's cache."""


class _ShortAttention(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        projected: torch.Tensor,
        heads: int,
        scaling: float,
        kept: Kept | None,
    ) -> torch.Tensor:
        rows, time, width = projected.shape[0], projected.shape[1], projected.shape[2] // 3
        # (rows, time, 3 * hidden) -> (3, rows * heads, time, hidden of a head)
        split = projected.view(rows, time, 3, heads, width // heads)
        parts = split.permute(2, 0, 3, 1, 4).reshape(3, rows * heads, time, width // heads)
        query, key, value = parts.unbind(0)
        future = torch.full((time, time), float("-inf"), dtype=parts.dtype, device=parts.device)
        scores = torch.baddbmm(future.triu_(1), query, key.transpose(1, 2), alpha=scaling)
        shares = _softmax(scores)
        states = torch.bmm(shares if kept is None else kept.of(shares), value)
        if kept is not None:
            states.mul_(kept.scale)
        ctx.save_for_backward(parts, shares, *(() if kept is None else (kept.bits,)))
        ctx.heads, ctx.scaling = heads, scaling
        ctx.kept_by = 1.0 if kept is None else kept.scale
        return states.view(rows, heads, time, -1).transpose(1, 2).reshape(rows, time, width)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # noqa: ANN401
        parts, shares, *bits = ctx.saved_tensors
        query, key, value = parts.unbind(0)
        rows, time, width = gradient.shape
        split = gradient.view(rows, time, ctx.heads, -1).transpose(1, 2)
        towards = split.reshape(rows * ctx.heads, time, -1)
        back = torch.empty_like(parts)
        kept = Kept(bits[0], ctx.kept_by) if bits else None
        if kept is not None:
            towards = towards * kept.scale
        by_share = torch.bmm(towards, value.transpose(1, 2))
        by_share = by_share if kept is None else kept.of(by_share)
        read = shares if kept is None else kept.of(shares)
        torch.bmm(read.transpose(1, 2), towards, out=back[2])
        by_score = _softmax_backward(by_share, shares).mul_(ctx.scaling)
        torch.bmm(by_score, key, out=back[0])
        torch.bmm(by_score.transpose(1, 2), query, out=back[1])
        whole = back.view(3, rows, ctx.heads, time, -1).permute(1, 3, 0, 2, 4)
        return whole.reshape(rows, time, 3 * width), None, None, None


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Return the softmax of (groups, time, time), over the last, in the type of the scores."""
    time = scores.shape[-1]
    if scores.dtype != torch.bfloat16 or time < _LANES or time % (2 * _LANES) < _SLOW_TAIL:
        return torch.softmax(scores, -1)
    shares = torch.empty_like(scores)
    groups = -(-_AT_ONCE // time**2)
    for part, found in zip(scores.split(groups), shares.split(groups), strict=True):
        found.copy_(torch.softmax(part.float(), -1))
    return shares


def _softmax_backward(gradient: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return the gradient towards the scores from the one towards their softmax."""
    backward, time = torch._softmax_backward_data, shares.shape[-1]  # noqa: SLF001 - what autograd calls
    if shares.dtype != torch.bfloat16 or not _LANES <= time < 2 * _LANES:
        return backward(gradient, shares, -1, shares.dtype)
    found = torch.empty_like(shares)
    groups = -(-_AT_ONCE // time**2)
    parts = zip(gradient.split(groups), shares.split(groups), found.split(groups), strict=True)
    for towards, share, into in parts:
        into.copy_(backward(towards.float(), share.float(), -1, torch.float32))
    return found


def causal_attention(
    projected: torch.Tensor,
    heads: int,
    *,
    scaling: float,
    masks: DropoutMasks | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attend from each token to itself and those before it.

    Args:
        projected: queries, keys and values side by side, (rows, time, 3 * hidden).
        heads: that the hidden width is divided into.
        scaling: what scores are multiplied by.
        masks: of this pass; None drops nothing.
        dropout: share of the attention weights that is dropped.

    Returns:
        (rows, time, hidden).
    """
    rows, time, width = projected.shape[0], projected.shape[1], projected.shape[2] // 3
    dropout = 0.0 if masks is None else dropout
    if projected.device.type == "cpu" and time <= _SHORT:
        shape = (rows * heads, time, time)
        kept = masks.draw(shape, dropout, projected.dtype) if masks and dropout > 0 else None
        found: torch.Tensor = _ShortAttention.apply(projected, heads, scaling, kept)
        return found
    query, key, value = projected.view(rows, time, 3, heads, -1).permute(2, 0, 3, 1, 4)
    states = scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
    )
    return states.transpose(1, 2).reshape(rows, time, width)


_LINEAR = 2.0 * math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715 * _LINEAR


class _Activated(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        # gelu(x) = x s(z) with s the logistic function and z = a x + b x^3, so that
        # gelu'(x) = s + s (1 - s) x z' and x z' = 3 z - 2 a x = -2 a (x - 3 z / 2 a).
        z = torch.addcmul(x.new_tensor(_LINEAR), x, x, value=_CUBIC).mul_(x)
        share = torch.sigmoid(z)
        if ctx.needs_input_grad[0]:
            torch.sub(x, z, alpha=1.5 / _LINEAR, out=z)
            torch.ops.aten.sigmoid_backward(z, share, grad_input=z)
            ctx.save_for_backward(torch.add(share, z, alpha=-2.0 * _LINEAR, out=z))
        return share.mul_(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        (slope,) = ctx.saved_tensors
        found: torch.Tensor = gradient * slope
        return found


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Return `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.

    On a CPU torch's own function takes as long on the way back as forwards, at GPT-2's 124M shape in
    bfloat16 two fifths of the time of the product before it, both times. Here it is made of quick
    steps, which take as long together, and what is kept for the way back is the derivative: a single
    product is left. In bfloat16 each step is rounded, as transformers' own are.

    Args:
        x: of any shape.

    References:
        Hendrycks and Gimpel 2016, Gaussian Error Linear Units, arXiv:1606.08415.
    """
    if x.device.type == "cpu" and (x.dtype == torch.bfloat16 or _way_back(x)):
        found: torch.Tensor = _Activated.apply(x)
        return found
    return functional.gelu(x, approximate="tanh")


def _way_back(x: torch.Tensor) -> bool:
    return x.dtype == torch.float32 and x.requires_grad and torch.is_grad_enabled()


_FUNCTIONS = (
    *(torch.acos, torch.asin, torch.atan, torch.cos, torch.cosh, torch.sin, torch.sinh),
    *(torch.tan, torch.tanh, torch.exp, torch.expm1, torch.log, torch.log10, torch.log1p),
    *(torch.log2, torch.sqrt, torch.erf, torch.erfc, torch.erfinv, torch.trunc),
)


@functools.cache
def settle_vector_functions() -> None:
    """Call each function once with one number, so that its first call is in one thread.

    MKL chooses the code of a function when that is called first. Where several threads are first, one of
    them may take code for low accuracy, for that one call: a model's first pass then differs from its second,
    by up to 5e-5 in a hyperbolic tangent (pytorch/pytorch#188792). Under load that was seen in 1 to 2
    processes of a hundred on an Intel Xeon with two cores.
    """
    for dtype in (torch.float32, torch.float64):
        one_number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for function in _FUNCTIONS:
            function(one_number)
