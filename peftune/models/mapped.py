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

_seen: list[Range] = []
"""Where files were mapped when it was last asked; asking takes milliseconds."""


def release_mapped(weights: Iterable[torch.Tensor], *, whole_files: bool = False) -> None:
    """Let the system take back the memory of weights that can be read from their file again.

    Safetensors maps a checkpoint into memory: a weight's pages come in when it is read first, and
    stay. Pages that are released come in again when they are needed, and those that were written to
    are kept, so no value changes. Nothing is done for weights in ordinary memory or on a GPU, for
    files that this user may not write (Linux then keeps the pages), and on other systems than Linux.

    Args:
        weights: on any device.
        whole_files: release all that is mapped of the files in which they lie, such as what an int8
            base was made of.
    """
    held = [weight for weight in weights if weight.device.type == "cpu" and weight.nbytes]
    if not all(_among(_seen, weight) for weight in held):
        _seen[:] = _mapped_files()
    around = {_range(weight): _among(_seen, weight) for weight in held}
    found = {file if whole_files else own for own, file in around.items() if file}
    for begin, end in sorted(found):
        start = begin - begin % mmap.PAGESIZE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _PAGE_OUT)


def _among(files: Iterable[Range], weight: torch.Tensor) -> Range | None:
    begin, end = _range(weight)
    return next((file for file in files if file[0] <= begin and end <= file[1]), None)


def _range(weight: torch.Tensor) -> Range:
    return weight.data_ptr(), weight.data_ptr() + weight.nbytes


def _mapped_files() -> list[Range]:
    """List where files are mapped; shared memory is none."""
    with contextlib.suppress(OSError):
        lines = (line.split(maxsplit=5) for line in _MAPS.read_text(errors="replace").splitlines())
        places = [line[0] for line in lines if len(line) > 5 and _is_file(line[5])]  # noqa: PLR2004 - the path comes last
        return [(int(first, 16), int(last, 16)) for first, last in (p.split("-") for p in places)]
    return []


def _is_file(path: str) -> bool:
    return path.startswith("/") and not path.startswith("/dev/")
