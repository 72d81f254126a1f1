"""Gradients that keep their memory from step to step."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from torch import nn

from peftune.kernels.rooms import Rooms
from peftune.models.parts import trainable_parameters, trunk_of

_WORTH = 8_000_000
"""Learning weights from which it is worth it."""


@contextlib.contextmanager
def kept_gradients(model: nn.Module, *, processes: int = 1) -> Iterator[Rooms | None]:
    """Let `zero_grad` keep the memory of gradients on a CPU, where it would give it back.

    The system hands out memory page by page, and clears each: with half a gigabyte of gradients
    that takes longer than the step's products. Where a backward pass writes into the rooms that are
    yielded, a weight has no gradient until then; other gradients are filled with zeros. The embedding
    adds the few rows of a batch to a gradient that is there, where it would otherwise make one of the
    whole vocabulary. A weight that gets no gradient keeps having none.

    Args:
        model: a prepared model; it has no gradients afterwards.
        processes: that train together; with several, their gradients are left as they are.

    Yields:
        A room for each weight; None where gradients are left as they are.
    """
    learning = trainable_parameters(model).values()
    on_cpu = all(weight.device.type == "cpu" for weight in learning)
    if processes > 1 or not on_cpu or sum(weight.numel() for weight in learning) < _WORTH:
        yield None
        return
    rooms = Rooms(learning)
    embedding = trunk_of(model).wte
    own, kept = model.zero_grad, embedding.sparse

    @functools.wraps(own)
    def zero_grad(*_: Any, **__: Any) -> None:  # noqa: ANN401 - torch's signature
        for weight in learning:
            room = rooms.of(weight)
            if weight.grad is not None and room is not None and room.holds(weight.grad):
                weight.grad = None
        own(set_to_none=False)
        if embedding.weight.grad is not None:
            embedding.sparse = True

    model.zero_grad = zero_grad  # type: ignore[method-assign]
    try:
        yield rooms
    finally:
        del model.zero_grad
        embedding.sparse = kept
        model.zero_grad(set_to_none=True)
