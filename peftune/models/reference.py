"""The model as it was before training, and at every strength between then and now."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from peftune.models.low_rank import is_int8, scale_of
from peftune.models.mapped import OwnFiles
from peftune.models.memory import release_mapped
from peftune.models.parts import trainable_parameters
from peftune.models.strength import Strength, weights_at

_READ_AT_ONCE = 64 * 2**20
"""Bytes of a mapped base that are in memory at a time while it is hashed."""


def frozen_sha256(model: nn.Module, before: Mapping[str, torch.Tensor]) -> str:
    """Hash the weights that do not learn: what the reference rests on.

    Of a mapped base little is in memory at a time.

    Args:
        model: a prepared model.
        before: the weights that learn, from `snapshot`; they are left out.
    """
    digest = hashlib.sha256()
    read: list[torch.Tensor] = []
    for name, weight in model.named_parameters():
        if name not in before:
            values = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(values.numpy().data)
            read.append(weight)
            if sum(one.nbytes for one in read) > _READ_AT_ONCE:
                release_mapped(read)
                read.clear()
    release_mapped(read)
    for name, module in model.named_modules():
        if is_int8(module):
            digest.update(f"{name} scale".encode())
            digest.update(scale_of(module).detach().cpu().numpy().data)
    return digest.hexdigest()


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Keep the weights that learn, as they are now.

    Those that are as their mapped checkpoint has them stay there: on a CPU under Linux, for a base
    that is held as its file stores it. The others are copied.

    Returns:
        Each trainable weight by name, on the weight's device, which `beside` follows to another one.
        It does not change when the model learns.
    """
    files, found = OwnFiles(), {}
    for name, weight in trainable_parameters(model).items():
        own = files.unchanged(weight.detach())
        found[name] = weight.detach().clone() if own is None else own
        release_mapped([weight, *([] if own is None else [own])])
    return found


def beside(before: Mapping[str, torch.Tensor], model: nn.Module) -> Mapping[str, torch.Tensor]:
    """Return the kept weights where the model's own are now: Trainer moves a model that it gets.

    Args:
        before: from `snapshot`.
        model: the model that it was taken of.

    Returns:
        The same object where none has to be moved.
    """
    now = trainable_parameters(model)
    devices = {
        name: now[name].device if name in now else kept.device for name, kept in before.items()
    }
    if all(kept.device == devices[name] for name, kept in before.items()):
        return before
    return {name: kept.to(devices[name]) for name, kept in before.items()}


@contextlib.contextmanager
def at_strength(
    model: nn.Module,
    before: Mapping[str, torch.Tensor],
    strength: Strength | float,
    *,
    keep_head: bool = False,
) -> Iterator[None]:
    """Let the model act between before (0) and now (1) inside the context.

    At 0 and 1 the model is exactly the one before and the one now. The weights come back on exit.

    Args:
        model: a prepared model.
        before: the weights at the start, from `snapshot`.
        strength: how far from there; a number is the same strength everywhere.
        keep_head: leave the classification head as it is.
    """
    chosen = strength if isinstance(strength, Strength) else Strength(strength)
    weights = trainable_parameters(model)
    values = weights_at(model, before, chosen, keep_head=keep_head)
    kept = {name: weights[name].data for name in values}
    try:
        for name, value in values.items():
            weights[name].data = value
        yield
    finally:
        for name, now in kept.items():
            weights[name].data = now
