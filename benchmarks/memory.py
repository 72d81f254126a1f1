"""How much memory a process needs, as the system counts it, and what of it is known to be what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """Return the memory of this process now; None where the system does not tell."""
    return _field("VmRSS")


def peak_bytes() -> int | None:
    """Return the most memory that this process has had; None where the system does not tell.

    A program may reset this peak while it runs (peftune does when training begins), so it is read
    on both sides of a stretch of work, and the larger figure counts.
    """
    return _field("VmHWM")


def _field(name: str) -> int | None:
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def larger(*figures: int | None) -> int | None:
    """Return the largest of the figures that are known."""
    known = [figure for figure in figures if figure is not None]
    return max(known) if known else None


def device_peaks(device: str) -> dict[str, int] | None:
    """Return the most device memory allocated and reserved so far; None on a CPU."""
    if device != "cuda":
        return None
    return {
        "allocated": int(torch.cuda.max_memory_allocated()),
        "reserved": int(torch.cuda.max_memory_reserved()),
    }


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Count bytes, each storage once."""
    storages = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def weight_bytes(model: nn.Module) -> int:
    """Count the bytes of a model's parameters and buffers."""
    return bytes_of([*model.parameters(), *model.buffers()])


def gradient_bytes(model: nn.Module) -> int:
    """Count the bytes of the gradients that a model holds now."""
    return bytes_of(weight.grad for weight in model.parameters() if weight.grad is not None)


def optimizer_bytes(optimizer: Any) -> int:  # noqa: ANN401 - torch's, or accelerate's around it
    """Count the bytes of an optimizer's state."""
    held = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    return bytes_of(held)
