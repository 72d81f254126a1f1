"""Products for texts that are only read: batches of every size, from code for a few shapes."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from peftune.kernels.products import Plain, onednn_gains

ROWS = 256
"""Rows that are multiplied at a time."""

_MULTIPLE = 64
"""What the rows of the last time are padded to a multiple of.

OneDNN makes machine code for each shape of a product and keeps it, some 14 MB for each number of rows
of a GPT-2 with 124M weights: the batches of a long text would add a gigabyte.
"""


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `x W + b`.

    Args:
        x: (tokens, inputs).
        weight: (inputs, outputs), of any strides.
        bias: (outputs,).

    Returns:
        (tokens, outputs).
    """
    plain = Plain(weight)
    if not onednn_gains(x, weight.t()):
        return plain.forward(x, bias)
    if len(x) <= ROWS:
        return plain.forward(_padded(x), bias)[: len(x)]
    found = x.new_empty(len(x), weight.shape[1])
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        found[start : start + ROWS] = plain.forward(_padded(part), bias)[: len(part)]
    return found


def _padded(x: torch.Tensor) -> torch.Tensor:
    missing = -len(x) % _MULTIPLE
    return pad(x, (0, 0, 0, missing)) if missing else x
