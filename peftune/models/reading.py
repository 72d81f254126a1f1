"""Let a trunk read faster than it was written: the same modules, with quicker products."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.functional import gelu
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from peftune.kernels.products import has_onednn
from peftune.kernels.reading import product


@contextlib.contextmanager
def reading_fast(model: nn.Module) -> Iterator[None]:
    """Compute a GPT-2's maps and activations in the fastest way there is on a CPU, inside.

    The mathematics is that of transformers, up to rounding. Whatever lies around a map, such as an
    adapter of any kind, calls it as before, so that models that share weights still agree to the
    bit.

    Args:
        model: any model around a GPT-2 trunk; it has its own forward again afterwards.
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
    for module in model.modules():
        if type(module) is NewGELUActivation:
            yield module, _activated
        elif type(module) is Conv1D and _gains(module.weight):
            yield module, _mapped(module)


def _gains(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and has_onednn()


def _activated(x: torch.Tensor) -> torch.Tensor:
    """Compute in one step what transformers computes in eight."""
    return gelu(x, approximate="tanh")


def _mapped(module: Conv1D) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        found = product(x.flatten(0, -2), module.weight, module.bias)
        return found.view(*x.shape[:-1], -1)

    return forward
