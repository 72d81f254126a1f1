"""The fast forward of GPT-2's blocks, over the tokens of right-padded texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import GPT2Model
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Attention, GPT2Block

from peftune.fastpath.attention import causal_attention, gelu
from peftune.fastpath.dropout import DropoutMasks, dropped_sum
from peftune.fastpath.linear_maps import Computing, InType, LinearMap
from peftune.fastpath.mapped_memory import release_freed, release_mapped

_PASSES = 16
"""Passes after which what was read of a mapped table of tokens is given back: a page comes in with
its neighbors, so that most of the table would soon be in memory for the few tokens of a data set."""

_RISE = 1.5
_SMALL = 256
"""The first pass of its size, if it has so many times the tokens of the one before, finds no room in
what smaller ones left, which is given back first. From so many tokens on, and before sizes that were
met, having it cleared again takes longer than it is worth."""

_GELU = ("gelu_new", "gelu_pytorch_tanh")
"""Two names of one function: transformers computes the first in eight steps, torch in one."""


class FastBackbone:
    """What a backbone computes, without a mask, a cache or the last block's unread tokens.

    Args:
        backbone: whose modules hold the weights.
        computing: how products are computed.
        dropout: drop what the base's configuration says, while training.
    """

    def __init__(self, backbone: GPT2Model, computing: Computing, *, dropout: bool) -> None:
        self._backbone: Any = backbone
        self._computing = computing
        tables = [table for part in (backbone.wte, backbone.wpe) for table in part.parameters()]
        learns = any(table.requires_grad for table in tables)
        self._only_read = [] if learns else tables
        self._passes = 0
        self._before = (0, False)
        self._met: set[int] = set()
        self._stream = torch.float32 if learns else computing.dtype
        self._embedding_dropout = float(backbone.drop.p) if dropout else 0.0
        self._blocks = [_Block(block, computing, dropout=dropout) for block in backbone.h]
        self._last_norm = _Norm(backbone.ln_f, self._stream)

    @property
    def dtype(self) -> torch.dtype:
        """The type that its products are computed in."""
        return self._computing.dtype

    def __call__(
        self, tokens: torch.Tensor, last: torch.Tensor | None, masks: DropoutMasks | None
    ) -> torch.Tensor:
        """Return the last hidden states, float32.

        Args:
            tokens: ids, padded on the right, (rows, time), int64.
            last: each row's place that is read, (rows,), int64; None reads all.
            masks: of this pass; None drops nothing.

        Returns:
            (rows, hidden), or (rows * time, hidden) where all are read.
        """
        time = tokens.shape[1]
        if tokens.device.type == "cpu":
            self._release(tokens.numel(), learning=masks is not None)
        places = torch.arange(time, device=tokens.device)
        embedded = self._backbone.wte(tokens) + self._backbone.wpe(places)  # (rows, time, hidden)
        states = embedded.flatten(0, 1).to(self._stream)
        if masks is not None and self._embedding_dropout > 0:
            states = dropped_sum(
                torch.zeros((), dtype=states.dtype, device=states.device).expand_as(states),
                states,
                masks,
                self._embedding_dropout,
            )
        for block in self._blocks[:-1]:
            states = block(states, time, masks)
        states = self._blocks[-1](states, time, masks, last)
        return self._last_norm(states).float()

    def _release(self, tokens: int, *, learning: bool) -> None:
        """Give memory back that is not needed in this pass, or would be read again at once."""
        self._passes += 1
        if self._passes % _PASSES == 0:
            release_mapped(self._only_read)
        before, learned = self._before
        rises = tokens not in self._met and _RISE * before < tokens < _SMALL
        if learned != learning or rises:
            release_freed()
        self._met.add(tokens)
        self._before = (tokens, learning)


class _Block:
    def __init__(self, block: Any, computing: Computing, *, dropout: bool) -> None:  # noqa: ANN401 - a GPT2Block
        self._before_attention = _Norm(block.ln_1, computing.dtype)
        self._before_mlp = _Norm(block.ln_2, computing.dtype)
        self._projected = LinearMap(block.attn.c_attn, computing)
        self._attended = LinearMap(block.attn.c_proj, computing)
        self._widened = LinearMap(block.mlp.c_fc, computing)
        self._narrowed = LinearMap(block.mlp.c_proj, computing)
        self._heads = int(block.attn.num_heads)
        self._scaling = float(block.attn.scaling)
        self._attention_dropout = float(block.attn.attn_dropout.p) if dropout else 0.0
        self._after_attention = float(block.attn.resid_dropout.p) if dropout else 0.0
        self._after_mlp = float(block.mlp.dropout.p) if dropout else 0.0

    def __call__(
        self,
        states: torch.Tensor,
        time: int,
        masks: DropoutMasks | None,
        last: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map (rows * time, hidden) to the same, or to the read tokens alone, (rows, hidden)."""
        seen = self._before_attention(states)
        projected = self._projected(seen, masks)
        attended = causal_attention(
            projected.view(-1, time, projected.shape[-1]),
            self._heads,
            scaling=self._scaling,
            masks=masks,
            dropout=self._attention_dropout,
        ).flatten(0, 1)
        if last is not None:
            read = torch.arange(len(last), device=last.device) * time + last
            states, attended = states[read], attended[read]
        update = self._attended(attended, masks)
        states = dropped_sum(states, update, masks, self._after_attention)
        seen = self._before_mlp(states)
        wide = gelu(self._widened(seen, masks))
        return dropped_sum(states, self._narrowed(wide, masks), masks, self._after_mlp)


class _Norm:
    """A layer norm, plain or of a plug-in, and the type that its outcome is computed further in."""

    def __init__(self, norm: Any, dtype: torch.dtype) -> None:  # noqa: ANN401 - a layer norm
        self._norm = norm
        self._dtype = dtype
        plain = type(norm) is nn.LayerNorm
        self._affine = (InType(norm.weight), InType(norm.bias)) if plain else None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Normalize (tokens, hidden)."""
        if self._affine is None:
            found: torch.Tensor = self._norm(states)
            return found.to(self._dtype)
        shape, (weight, bias) = self._norm.normalized_shape, self._affine
        found = functional.layer_norm(
            states, shape, weight(states.dtype), bias(states.dtype), self._norm.eps
        )
        return found.to(self._dtype)


def why_not(backbone: nn.Module) -> str | None:
    """Say what keeps a backbone from being computed leanly; None if nothing does."""
    config: Any = backbone.config
    if type(backbone) is not GPT2Model:
        return f"the backbone is a {type(backbone).__name__}"
    if config.activation_function not in _GELU:
        return f"activation_function is {config.activation_function}"
    if config.reorder_and_upcast_attn or config.add_cross_attention:
        return "its attention is not GPT-2's usual one"
    for name, module in backbone.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 - no public way to ask
            return f"'{name}' has a hook, which must see what passes"
    for block in backbone.h:
        parts = (type(block), type(block.attn), type(block.mlp))
        if parts != (GPT2Block, GPT2Attention, GPT2MLP):
            return f"a block consists of {', '.join(part.__name__ for part in parts)}"
    return None
