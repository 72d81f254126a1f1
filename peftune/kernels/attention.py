"""Causal attention over short texts that are padded on the right, so that no mask is needed."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function
from torch.nn.functional import scaled_dot_product_attention

from peftune.kernels.noise import Kept, Noise

_SHORT = 128
"""Tokens up to which all scores are held. Torch's fused kernel for a CPU takes ten times as long on
texts of twenty tokens; on long ones it wins, and what it need not hold counts."""


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
        shares = torch.softmax(scores, -1)
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
        by_share = torch.bmm(towards, value.transpose(1, 2))
        if bits:
            kept = Kept(bits[0], ctx.kept_by)
            towards = towards * kept.scale
            by_share = kept.of(by_share).mul_(kept.scale)
            torch.bmm(kept.of(shares).transpose(1, 2), towards, out=back[2])
        else:
            torch.bmm(shares.transpose(1, 2), towards, out=back[2])
        by_score = torch._softmax_backward_data(by_share, shares, -1, shares.dtype)  # noqa: SLF001
        by_score.mul_(ctx.scaling)
        torch.bmm(by_score, key, out=back[0])
        torch.bmm(by_score.transpose(1, 2), query, out=back[1])
        whole = back.view(3, rows, ctx.heads, time, -1).permute(1, 3, 0, 2, 4)
        return whole.reshape(rows, time, 3 * width), None, None, None


def causal_attention(
    projected: torch.Tensor,
    heads: int,
    *,
    scaling: float,
    noise: Noise | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attend from each token to itself and those before it.

    Args:
        projected: queries, keys and values side by side, (rows, time, 3 * hidden).
        heads: that the hidden width is divided into.
        scaling: what scores are multiplied by.
        noise: of this pass; None drops nothing.
        dropout: share of the attention weights that is dropped.

    Returns:
        (rows, time, hidden).
    """
    rows, time, width = projected.shape[0], projected.shape[1], projected.shape[2] // 3
    dropout = 0.0 if noise is None else dropout
    if projected.device.type == "cpu" and time <= _SHORT:
        shape = (rows * heads, time, time)
        kept = noise.kept(shape, dropout, projected.dtype) if noise and dropout > 0 else None
        found: torch.Tensor = _ShortAttention.apply(projected, heads, scaling, kept)
        return found
    query, key, value = projected.view(rows, time, 3, heads, -1).permute(2, 0, 3, 1, 4)
    states = scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
    )
    return states.transpose(1, 2).reshape(rows, time, width)
