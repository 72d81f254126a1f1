"""The frozen trunk in bfloat16 while it trains, and as it was afterwards."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping

import torch
from peft import PeftModel
from torch import nn

from peftune.errors import PeftuneError
from peftune.models.base import load_trunk
from peftune.models.parts import trunk_of
from peftune.models.prepare import preparation_of

logger = logging.getLogger(__name__)


def worth_holding(model: nn.Module, *, looked_at: bool) -> bool:
    """Say whether a training in bfloat16 holds the frozen trunk in it.

    It does where the trunk takes a GPU's memory: on a CPU it stays mapped, and its pages come and go.

    Args:
        model: a prepared model.
        looked_at: whether terms of the loss or callbacks may look at the base, which then stays.
    """
    on_cpu = trunk_of(model).wte.weight.device.type == "cpu"
    return isinstance(model, PeftModel) and not (on_cpu or looked_at)


@contextlib.contextmanager
def held_in_bfloat16(model: nn.Module) -> Iterator[bool]:
    """Hold the frozen float weights of a trunk in bfloat16 inside: half the bytes.

    They are read from the base again afterwards, so they are what they were, to the bit. Where a
    frozen weight is not the base's, as after a start that rewrites it, nothing is done; nor where
    checkpoints hold the frozen weights too, as they do without PEFT.

    Args:
        model: a prepared model.

    Yields:
        Whether they are held so.
    """
    if not (isinstance(model, PeftModel) and _set_frozen(model, torch.bfloat16)):
        logger.info(
            "frozen weights stay in float32: they are not the base's, or are in checkpoints"
        )
        yield False
        return
    try:
        yield True
    finally:
        _set_frozen(model, torch.float32)


def _set_frozen(model: nn.Module, dtype: torch.dtype) -> bool:
    """Give frozen weights the values of the base, in a type; refuse those that have others."""
    frozen = _frozen_weights(model)
    device = trunk_of(model).wte.weight.device
    try:
        trunk = load_trunk(preparation_of(model).base, device)
    except PeftuneError:
        if dtype == torch.float32:
            raise
        return False
    own = dict(trunk.named_parameters())
    if dtype != torch.float32 and not _are_of(frozen, own):
        return False
    for name, weight in frozen.items():
        weight.data = own[name].data if dtype == torch.float32 else weight.data.to(dtype)
    return True


def _frozen_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return float weights of the trunk that do not learn, by their name in a plain trunk."""
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in trunk_of(model).named_parameters()
        if not weight.requires_grad and weight.is_floating_point()
    }


def _are_of(frozen: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> bool:
    return all(
        name in base and weight.dtype == base[name].dtype and torch.equal(weight, base[name])
        for name, weight in frozen.items()
    )
