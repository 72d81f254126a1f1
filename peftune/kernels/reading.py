"""Products for texts that are only read: batches of every size, from code for a few shapes."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from peftune.kernels.products import Plain, onednn_gains

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
