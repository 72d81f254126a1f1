"""Weights that lie in a mapped checkpoint, and the memory that reading them takes."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path

import torch

_MAPS = Path("/proc/self/maps")
_PAGE_OUT = 21
"""Linux's MADV_PAGEOUT, which Python's `mmap` does not name."""

Range = tuple[int, int]


def release_mapped(weights: Iterable[torch.Tensor]) -> None:
    """Let the system take back the memory of weights that can be read from their file again.

    Safetensors maps a checkpoint into memory: a weight's pages come in when it is read first, and
    stay. Pages that are released come in again when they are needed, and those that were written to
    are kept, so no value changes. Nothing is done for weights in ordinary memory or on a GPU, for
    files that this user may not write (Linux then keeps the pages), and on other systems than Linux.

    Args:
        weights: on any device.
    """
    held = [weight for weight in weights if weight.device.type == "cpu" and weight.nbytes]
    files = _mapped_files() if held else []
    for weight in held:
        begin = weight.data_ptr()
        _page_out(begin, begin + weight.nbytes, files)


def _page_out(begin: int, end: int, files: Iterable[Range]) -> None:
    for first, last in files:
        if first <= begin and end <= last:
            start = begin - begin % mmap.PAGESIZE
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(end - start), _PAGE_OUT
            )
            return


def _mapped_files() -> list[Range]:
    """List where files are mapped; shared memory is none."""
    with contextlib.suppress(OSError):
        lines = (line.split(maxsplit=5) for line in _MAPS.read_text(errors="replace").splitlines())
        places = [line[0] for line in lines if len(line) > 5 and _is_file(line[5])]  # noqa: PLR2004 - the path comes last
        return [(int(first, 16), int(last, 16)) for first, last in (p.split("-") for p in places)]
    return []


def _is_file(path: str) -> bool:
    return path.startswith("/") and not path.startswith("/dev/")
