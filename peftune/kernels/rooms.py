"""Memory for gradients that are written anew in each step, instead of added to zeros."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch


class Room:
    """The memory of one weight's gradient, from step to step."""

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None
        self._given: weakref.ref[torch.Tensor] | None = None

    def take(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Give the memory for a gradient, with whatever stands in it; None while it is in use.

        It is in use as long as the weight has a gradient, to which further ones are added, and while
        somebody holds what was given: autograd, until a weight that is used twice has its second gradient,
        or whoever asked `torch.autograd.grad`. A backward pass that is itself recorded gets none.

        Args:
            weight: whose gradient is to be written, a leaf without gaps.
        """
        held = self._given is not None and self._given() is not None
        if held or weight.grad is not None or torch.is_grad_enabled():
            return None
        if self._memory is None:
            self._memory = torch.empty_like(weight, requires_grad=False)
        # Another tensor over the same memory: autograd makes a gradient its own only if nobody holds it.
        given = self._memory.detach()
        self._given = weakref.ref(given)
        return given

    def holds(self, gradient: torch.Tensor) -> bool:
        """Say whether a gradient lies in this memory."""
        return self._memory is not None and self._memory.data_ptr() == gradient.data_ptr()


class Rooms:
    """A room for each of some weights.

    Args:
        weights: that learn; they stay alive as long as this.
    """

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        self._found = {id(weight): (weight, Room()) for weight in weights}

    def of(self, weight: torch.Tensor) -> Room | None:
        """Return the room of a weight; None if it has none."""
        found = self._found.get(id(weight))
        return None if found is None else found[1]
