"""Bytes as a table and a sentence show them."""

from __future__ import annotations

_KIB, _MIB = 1024, 1024**2


def shown_size(count: float) -> str:
    """Write a number of bytes: `527 KiB`, `20.8 MiB`."""
    return f"{count / _MIB:.1f} MiB" if count >= _MIB else f"{count / _KIB:.0f} KiB"
