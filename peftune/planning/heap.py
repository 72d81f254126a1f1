"""What a process holds of the machine's memory beside its tensors."""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil
import torch
from torch import nn

from peftune.models.parts import trunk_of
from peftune.planning.activations import chosen_blocks, few_tokens, held_so, only_blocks, step
from peftune.planning.batches import Batch
from peftune.planning.forward import Conditions, training_forward

_LIMIT = Path("/sys/fs/cgroup/memory.max")
_LENGTHS = 4
"""Lengths that a mean is taken over: small batches are padded to every fourth one."""

_ENOUGH = 300
"""Tokens of a pass that is no small batch any more."""


class _Allocated(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def resident_bytes() -> int:
    """Return the resident set of this process: its libraries, and what it has read so far."""
    return int(psutil.Process().memory_info().rss)


def available_bytes(device: torch.device) -> int:
    """Return how much memory a run that is started now can have.

    Args:
        device: where it would train. On a CPU that is what the system can give, within the limit of
            a container, and what this process will have given back by then.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available) + resident_bytes()
    try:
        return min(free, int(_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return free


def kernel_bytes(model: nn.Module, conditions: Conditions, batch: Batch) -> int:
    """Measure what the machine code takes that oneDNN makes for each length of a batch, and keeps.

    Args:
        model: a hollow model.
        conditions: how it computes.
        batch: the largest of a training.

    Returns:
        Bytes for each further length; 0 where the C library does not tell.
    """
    if trunk_of(model).wte.weight.device.type != "cpu" or batch.time <= _LENGTHS:
        return 0
    rows = min(batch.rows, -(-_ENOUGH // batch.time))
    ends, _ = chosen_blocks(model)
    with (
        few_tokens(model),
        only_blocks(model, ends),
        held_so(model, conditions),
        training_forward(model, conditions),
    ):
        step(model, Batch(rows, batch.time))
        before = _allocated()
        for shorter in range(1, 1 + _LENGTHS):
            step(model, Batch(rows, batch.time - shorter))
        return max(0, _allocated() - before) // _LENGTHS


def _allocated() -> int:
    """Return the bytes that are allocated of this process's heap."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    ask.restype = _Allocated
    found = ask()
    return int(found.uordblks) + int(found.hblkhd)
