"""GPT-2's blocks over flat tokens, for texts that are padded on the right."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import GPT2Model
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Attention, GPT2Block

from peftune.kernels.activation import gelu
from peftune.kernels.attention import causal_attention
from peftune.kernels.noise import Noise, dropped_sum
from peftune.lean.maps import Computing, LinearMap

_GELU = ("gelu_new", "gelu_pytorch_tanh")
"""Two names of one function: transformers computes the first in eight steps, torch in one."""


class LeanTrunk:
    """What a trunk computes, without a mask, a cache or the last block's unread tokens.

    Args:
        trunk: whose modules hold the weights.
        computing: how products are computed.
        dropout: drop what the base's configuration says, while training.
    """

    def __init__(self, trunk: GPT2Model, computing: Computing, *, dropout: bool) -> None:
        self._trunk: Any = trunk
        self._computing = computing
        embeddings = (trunk.wte, trunk.wpe)
        learns = any(w.requires_grad for part in embeddings for w in part.parameters())
        self._stream = torch.float32 if learns else computing.dtype
        self._embedding_dropout = float(trunk.drop.p) if dropout else 0.0
        self._blocks = [_Block(block, computing, dropout=dropout) for block in trunk.h]

    def __call__(
        self, tokens: torch.Tensor, last: torch.Tensor | None, noise: Noise | None
    ) -> torch.Tensor:
        """Return the last hidden states, float32.

        Args:
            tokens: ids, padded on the right, (rows, time), int64.
            last: each row's place that is read, (rows,), int64; None reads all.
            noise: of this pass; None drops nothing.

        Returns:
            (rows, hidden), or (rows * time, hidden) where all are read.
        """
        time = tokens.shape[1]
        places = torch.arange(time, device=tokens.device)
        embedded = self._trunk.wte(tokens) + self._trunk.wpe(places)  # (rows, time, hidden)
        states = embedded.flatten(0, 1).to(self._stream)
        if noise is not None and self._embedding_dropout > 0:
            states = dropped_sum(
                torch.zeros((), dtype=states.dtype, device=states.device).expand_as(states),
                states,
                noise,
                self._embedding_dropout,
            )
        for block in self._blocks[:-1]:
            states = block(states, time, noise)
        states = self._blocks[-1](states, time, noise, last)
        return normalised(self._trunk.ln_f, states, self._stream).float()


class _Block:
    def __init__(self, block: Any, computing: Computing, *, dropout: bool) -> None:  # noqa: ANN401 - a GPT2Block
        self._block = block
        self._dtype = computing.dtype
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
        noise: Noise | None,
        last: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map (rows * time, hidden) to the same, or to the read tokens alone, (rows, hidden)."""
        seen = normalised(self._block.ln_1, states, self._dtype)
        projected = self._projected(seen, noise)
        attended = causal_attention(
            projected.view(-1, time, projected.shape[-1]),
            self._heads,
            scaling=self._scaling,
            noise=noise,
            dropout=self._attention_dropout,
        ).flatten(0, 1)
        if last is not None:
            read = torch.arange(len(last), device=last.device) * time + last
            states, attended = states[read], attended[read]
        update = self._attended(attended, noise)
        states = dropped_sum(states, update, noise, self._after_attention)
        seen = normalised(self._block.ln_2, states, self._dtype)
        wide = gelu(self._widened(seen, noise))
        return dropped_sum(states, self._narrowed(wide, noise), noise, self._after_mlp)


def normalised(norm: nn.Module, states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Apply a layer norm, plain or of a plug-in, and give what comes out in a type."""
    if type(norm) is not nn.LayerNorm:
        found: torch.Tensor = norm(states)
        return found.to(dtype)
    weight, bias = norm.weight.to(states.dtype), norm.bias.to(states.dtype)
    return functional.layer_norm(states, norm.normalized_shape, weight, bias, norm.eps).to(dtype)


def why_not(trunk: nn.Module) -> str | None:
    """Say what keeps a trunk from being computed leanly; None if nothing does."""
    config: Any = trunk.config
    if type(trunk) is not GPT2Model:
        return f"the trunk is a {type(trunk).__name__}"
    if config.activation_function not in _GELU:
        return f"activation_function is {config.activation_function}"
    if config.reorder_and_upcast_attn or config.add_cross_attention:
        return "its attention is not GPT-2's usual one"
    for name, module in trunk.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 - no public way to ask
            return f"'{name}' has a hook, which must see what passes"
    for block in trunk.h:
        parts = (type(block), type(block.attn), type(block.mlp))
        if parts != (GPT2Block, GPT2Attention, GPT2MLP):
            return f"a block consists of {', '.join(part.__name__ for part in parts)}"
    return None
