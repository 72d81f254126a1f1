"""The bytes of weights as a training holds them."""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import nn

from peftune.models.parts import trainable_parameters, trunk_of
from peftune.planning.forward import Conditions, held
from peftune.planning.hollow import Hollow, mapped_weights
from peftune.planning.shapes import Shape


def weight_bytes(hollow: Hollow, conditions: Conditions, *, lean: bool) -> int:
    """Count the weights as they are held: of a mapped file the pages that stay after they were read.

    Args:
        hollow: the prepared model.
        conditions: how it computes.
        lean: whether peftune computes, and not the model's own forward.
    """
    model, trunk = hollow.model, trunk_of(hollow.model)
    halved = {id(weight) for weight in held(model, conditions).values()}
    codes, in_file = integer_weights(model), mapped_weights(trunk, hollow.folder)
    released = _released(model, conditions, in_file) if lean else set()
    found = sum(buffer.nbytes for buffer in trunk.buffers())
    for weight in model.parameters():
        if id(weight) in halved:
            found += 2 * weight.numel()
        elif id(weight) not in released:
            found += weight.nbytes
    return found + sum(4 * len(weight) for weight in codes)  # a scale for each output


def _released(model: nn.Module, conditions: Conditions, in_file: set[int]) -> set[int]:
    """Find the mapped weights that are computed with from copies; their own pages are given back.

    Where checkpoints hold all weights, reading the best one back writes to them, so that they stay.
    """
    if not isinstance(model, PeftModel):
        return set()
    return {
        id(weight)
        for weight in trunk_of(model).h.parameters()
        if id(weight) in in_file and weight.dim() > 1 and conditions.computing.copies(weight)
    }


def copied_before(hollow: Hollow, conditions: Conditions) -> int:
    """Count what learns and is copied before the training: all but what a mapped file holds.

    Args:
        hollow: the prepared model.
        conditions: how it computes; who looks back while it trains has the file's pages in memory.
    """
    trunk = trunk_of(hollow.model)
    in_file = set() if conditions.looks_back else mapped_weights(trunk, hollow.folder)
    if in_file:
        in_file.add(id(trunk.wte.weight))  # the hollow model's own stands for one that lies there
    learning = trainable_parameters(hollow.model).values()
    return sum(weight.nbytes for weight in learning if id(weight) not in in_file)


def integer_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that bitsandbytes holds as integers."""
    return [weight for weight in model.parameters() if weight.dtype == torch.int8]


def trunk_parameters(shape: Shape) -> int:
    """Count the weights of a plain GPT-2 without a head."""
    width, inner = shape.width, shape.inner
    block = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    return (shape.vocabulary + shape.positions) * width + shape.blocks * block + 2 * width
