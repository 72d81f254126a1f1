"""Functions of each value of a tensor, which torch leaves to MKL on a CPU."""

from __future__ import annotations

import functools

import torch

_FUNCTIONS = (
    *(torch.acos, torch.asin, torch.atan, torch.cos, torch.cosh, torch.sin, torch.sinh),
    *(torch.tan, torch.tanh, torch.exp, torch.expm1, torch.log, torch.log10, torch.log1p),
    *(torch.log2, torch.sqrt, torch.erf, torch.erfc, torch.erfinv, torch.trunc),
)


@functools.cache
def settle_vector_functions() -> None:
    """Call each function once with one number, so that its first call is in one thread.

    MKL chooses the code of a function when that is called first. Where several threads are first, one of
    them may take code for low accuracy, for that one call: a model's first pass then differs from its second,
    by up to 5e-5 in a hyperbolic tangent (pytorch/pytorch#188792). Under load that was seen in 1 to 2
    processes of a hundred on an Intel Xeon with two cores.
    """
    for dtype in (torch.float32, torch.float64):
        one_number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for function in _FUNCTIONS:
            function(one_number)
