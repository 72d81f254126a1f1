"""Score texts faster: products whose result does not depend on the size of the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from transformers.activations import NewGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from peftune.fastpath.lora_layers import is_disabled, plain_lora, update_of
from peftune.fastpath.products import Plain, has_onednn, onednn_gains

_ROWS_OF_ONEDNN = 256
_ROWS_OF_MKL = 2048
"""MKL lost up to a fifth of its speed at 256 rows; at this many a reading was as fast as with all."""

_MULTIPLE = 64
"""What the rows of the last time are padded to a multiple of.

OneDNN makes machine code for each shape of a product and keeps it, some 14 MB for each number of rows
of a GPT-2 with 124M weights: the batches of a long text would add a gigabyte.
"""


def rows_at_a_time(x: torch.Tensor, weight: torch.Tensor) -> int:
    """Say how many rows of `x` are multiplied with a weight at a time.

    A row's last bits depend on how many lie beside it, so everyone who reads takes as many.

    Args:
        x: (tokens, inputs).
        weight: (inputs, outputs), of any strides.
    """
    return _ROWS_OF_ONEDNN if onednn_gains(x, weight.t()) else _ROWS_OF_MKL


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `x W + b`, taking `rows_at_a_time`.

    Args:
        x: (tokens, inputs).
        weight: (inputs, outputs), of any strides.
        bias: (outputs,).

    Returns:
        (tokens, outputs).
    """
    plain, rows = Plain(weight), rows_at_a_time(x, weight)
    multiple = _MULTIPLE if onednn_gains(x, weight.t()) else 1
    if len(x) <= rows:
        return plain.forward(_padded(x, multiple), bias)[: len(x)]
    found = x.new_empty(len(x), weight.shape[1])
    for part, into in zip(x.split(rows), found.split(rows), strict=True):
        into.copy_(plain.forward(_padded(part, multiple), bias)[: len(part)])
    return found


def _padded(x: torch.Tensor, multiple: int) -> torch.Tensor:
    missing = -len(x) % multiple
    return pad(x, (0, 0, 0, missing)) if missing else x


@contextlib.contextmanager
def reading_fast(model: nn.Module) -> Iterator[None]:
    """Compute a GPT-2's maps and activations in the fastest way there is on a CPU, inside.

    The mathematics is that of transformers and PEFT, up to rounding. A plain LoRA adds its update in
    place; any other adapter calls the map that it lies around as before. Models that share weights
    still agree to the bit, and so does one whose adapter is zero or disabled. No gradients come back.

    Args:
        model: any model around a GPT-2 backbone; it has its own forward again afterwards.
    """
    quicker = dict(_quicker(model))
    before = {module: vars(module).get("forward") for module in quicker}
    for module, forward in quicker.items():
        vars(module)["forward"] = forward
    try:
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = own


def _quicker(
    model: nn.Module,
) -> Iterator[tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]]:
    module: Any
    for module in model.modules():
        if type(module) is GPT2MLP and _is_plain(module):
            yield module, _widened(module)
        elif type(module) is NewGELUActivation:
            yield module, _activated
        elif type(module) is Conv1D and _gains(module.weight):
            yield module, _mapped(module)
        elif plain_lora(module) and _gains(module.base_layer.weight):
            yield module, _adapted(module)


def _is_plain(mlp: Any) -> bool:  # noqa: ANN401 - a GPT2MLP
    """Say whether nothing lies around its maps, or looks at what passes between them."""
    parts = (mlp.c_fc, mlp.act, mlp.c_proj)
    return (
        [type(part) for part in parts] == [Conv1D, NewGELUActivation, Conv1D]
        and not any(part._forward_hooks or part._forward_pre_hooks for part in parts)  # noqa: SLF001 - no public way to ask
        and not any("forward" in vars(part) for part in parts)
        and _gains(mlp.c_fc.weight)
        and not mlp.training
    )


def _gains(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and has_onednn()


def _activated(x: torch.Tensor) -> torch.Tensor:
    """Compute in one step what transformers computes in eight, in the memory of what was given."""
    found: torch.Tensor = torch.ops.aten.gelu_(x, approximate="tanh")
    return found


def _widened(mlp: Any) -> Callable[[torch.Tensor], torch.Tensor]:  # noqa: ANN401 - a GPT2MLP
    """Take as many tokens at a time through both maps as are multiplied at a time.

    Of oneDNN's 256, what is widened to four times the hidden states stays in the processor's cache;
    of MKL's many more it is at least no more memory for a longer batch.
    """

    def forward(x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(0, -2)
        found = torch.empty_like(tokens)
        rows = max(rows_at_a_time(tokens, part.weight) for part in (mlp.c_fc, mlp.c_proj))
        for part, into in zip(tokens.split(rows), found.split(rows), strict=True):
            wide = _activated(product(part, mlp.c_fc.weight, mlp.c_fc.bias))
            into.copy_(product(wide, mlp.c_proj.weight, mlp.c_proj.bias))
        return found.view(x.shape)

    return forward


def _mapped(module: Conv1D) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        found = product(x.flatten(0, -2), module.weight, module.bias)
        return found.view(*x.shape[:-1], -1)

    return forward


def _adapted(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:  # noqa: ANN401 - a LoRA layer
    own = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        name = plain_lora(module)
        update = update_of(module, name) if name and not is_disabled(module) else None
        found: torch.Tensor
        if update is None or update.down.dtype != x.dtype:
            found = own(x)
            return found
        found = module.base_layer(x)
        inner = x.flatten(0, -2) @ update.down.t()  # (tokens, rank)
        found.view(-1, found.shape[-1]).addmm_(inner, update.up.t(), alpha=update.scale)
        return found

    return forward
