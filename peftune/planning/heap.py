"""What a process holds of the machine's memory beside its tensors."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

HOLES = 1.25
"""Memory that a training takes from the system for each byte that its tensors need at once."""

CODE = 575_000
"""Bytes of machine code that oneDNN makes for a product of sizes that it has not met, and keeps."""

MOST_PRODUCTS = 1024
"""Products whose machine code oneDNN keeps."""

_LIMIT = Path("/sys/fs/cgroup/memory.max")


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
