"""bitsandbytes' linear maps with a bias that stays as it is stored.

Imported only where a model has such maps, since it imports bitsandbytes.
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

import bitsandbytes as bnb
import torch
from torch import nn

if TYPE_CHECKING:
    _Map = nn.Linear
else:
    _Map = object


class _KeepsBias(_Map):
    """Compute with a copy of the bias in the type of the input.

    `Linear8bitLt.forward` and `Linear4bit.forward` of bitsandbytes write the bias in the type of
    their input into the parameter (`self.bias.data = self.bias.data.to(x.dtype)`). One pass under
    autocast would round a frozen bias for good, and turn a trainable one into bfloat16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias, dtype = self.bias, self._computes_in(x)
        if bias is None or bias.dtype == dtype:
            return super().forward(x)
        # A stand-in, and not this module for a moment: another thread may read it.
        stand_in: Any = copy.copy(self)
        stand_in._parameters = {**self._parameters, "bias": bias.to(dtype)}  # noqa: SLF001 - nn.Module's
        found: torch.Tensor = super(_KeepsBias, stand_in).forward(x)
        return found

    def _computes_in(self, x: torch.Tensor) -> torch.dtype:
        return x.dtype


class Linear8bitLt(_KeepsBias, bnb.nn.Linear8bitLt):
    """int8 codes beside a bias that no pass changes."""


class Linear4bit(_KeepsBias, bnb.nn.Linear4bit):
    """4-bit codes beside a bias that no pass changes."""

    def _computes_in(self, x: torch.Tensor) -> torch.dtype:
        own: Any = self  # nothing says what types bitsandbytes' attributes have
        if not own.compute_type_is_set:
            own.set_compute_type(x)
            own.compute_type_is_set = True
        chosen: torch.dtype | None = own.compute_dtype
        return chosen or x.dtype


_KEEPING: tuple[tuple[type[nn.Module], type[nn.Module]], ...] = (
    (bnb.nn.Linear8bitLt, Linear8bitLt),
    (bnb.nn.Linear4bit, Linear4bit),
)


def keep_weights(model: nn.Module) -> None:
    """Let no pass through bitsandbytes' maps of a model change what they hold.

    Args:
        model: with such maps, and whatever is wrapped around them; their class is changed in place.
    """
    for module in model.modules():
        kind = type(module)
        for stock, keeping in _KEEPING:
            if isinstance(module, stock) and not isinstance(module, keeping):
                # Of somebody's own class the forward that it inherits is the one to replace.
                own = {"__module__": kind.__module__}
                bases = (kind, keeping)
                module.__class__ = keeping if kind is stock else type(kind.__name__, bases, own)
        if isinstance(module, bnb.nn.Linear4bit):
            # On some processors it would lay out its codes anew at the first evaluation.
            module.support_avx512bf16_for_cpu = False
    # bitsandbytes warns at every call that it casts to float16; that is how int8 works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
