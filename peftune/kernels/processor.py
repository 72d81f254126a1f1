"""What this CPU is and can, as Linux tells it."""

from __future__ import annotations

import functools
from pathlib import Path

_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
"""What Linux calls the instructions of x86 and ARM that multiply bfloat16."""


@functools.cache
def multiplies_bfloat16() -> bool:
    """Say whether this CPU has instructions that multiply bfloat16."""
    flags = _told("flags", "Features")
    return not _BFLOAT16.isdisjoint(flag for line in flags for flag in line.split())


@functools.cache
def is_intels() -> bool:
    """Say whether this CPU is Intel's, for which MKL is made."""
    return "GenuineIntel" in _told("vendor_id")


def _told(*names: str) -> set[str]:
    """Return what stands beside names, of all processors; nothing where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    pairs = (line.partition(":") for line in lines)
    return {value.strip() for name, _, value in pairs if name.strip() in names}
