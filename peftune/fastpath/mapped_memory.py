"""Weights that are mapped from their file: find them, read them there, and release their memory."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

_MAPS = Path("/proc/self/maps")

Range = tuple[int, int]
"""The first address, and the one after the last."""


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A part of a file in memory.

    Args:
        place: where.
        offset: of its first byte in the file.
        path: of the file, as it was called when it was mapped.
    """

    place: Range
    offset: int
    path: str

    def holds(self, weight: torch.Tensor) -> bool:
        """Say whether a weight lies in it as a whole."""
        begin, end = range_of(weight)
        return self.place[0] <= begin and end <= self.place[1]


def range_of(weight: torch.Tensor) -> Range:
    """Return where a weight without gaps lies."""
    return weight.data_ptr(), weight.data_ptr() + weight.nbytes


def mapped_files() -> list[MappedFile]:
    """List where files are mapped, as Linux tells; none elsewhere. Shared memory is none.

    Asking takes milliseconds.
    """
    with contextlib.suppress(OSError):
        lines = (line.split(maxsplit=5) for line in _MAPS.read_text(errors="replace").splitlines())
        return [_entry(line) for line in lines if len(line) > 5 and _is_file(line[5])]  # noqa: PLR2004 - the path comes last
    return []


class OwnFiles:
    """Weights of a mapped checkpoint once more, as its files have them.

    Such a copy is mapped as well: it takes no memory but of what was just read, and does not follow
    when the weight that lies in memory is trained.
    """

    def __init__(self) -> None:
        self._files = mapped_files()
        self._opened: dict[str, torch.Tensor] = {}

    def unchanged(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Return a weight as it is in its file; None if it is another now, or lies in none."""
        if weight.device.type != "cpu" or not weight.is_contiguous() or not weight.nbytes:
            return None
        file = next((file for file in self._files if file.holds(weight)), None)
        if file is None:
            return None
        begin = file.offset + weight.data_ptr() - file.place[0]
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            part = self._bytes(file.path)[begin : begin + weight.nbytes]
            found = part.view(weight.dtype).view(weight.shape)
            return found if torch.equal(found, weight) else None
        return None

    def _bytes(self, path: str) -> torch.Tensor:
        if path not in self._opened:
            # Mapped as private: who writes to it writes to no file.
            self._opened[path] = torch.from_numpy(np.memmap(path, np.uint8, mode="c"))
        return self._opened[path]


def _entry(line: list[str]) -> MappedFile:
    first, last = (int(address, 16) for address in line[0].split("-"))
    return MappedFile((first, last), int(line[2], 16), line[5])


def _is_file(path: str) -> bool:
    return path.startswith("/") and not path.startswith("/dev/")


_PAGES = Path("/proc/self/pagemap")
_ENTRY = np.dtype("<u8")
_PRESENT, _SWAPPED, _OF_A_FILE = (np.uint64(1 << bit) for bit in (63, 62, 61))
"""What Linux tells of a page, in an entry of eight bytes; see proc_pid_pagemap(5)."""

_DO_NOT_NEED = 4
"""Linux's MADV_DONTNEED, which gives pages back at once."""

_seen: list[MappedFile] = []
"""Where files were mapped when it was last asked; asking takes milliseconds."""


def release_mapped(weights: Iterable[torch.Tensor], *, whole_files: bool = False) -> None:
    """Give the system the memory of weights that can be read from their file again.

    Safetensors maps a checkpoint into memory: a weight's pages come in when it is read first, and
    stay. Pages that are released come in again when they are needed, from the system's cache of
    files as long as it holds them. Those that were written to are no longer the file's, and are
    kept: no value changes. Nothing is done for weights in ordinary memory or on a GPU, and where the
    system does not tell which pages were written to, as other systems than Linux.

    No other thread may write to the weights meanwhile.

    Args:
        weights: on any device.
        whole_files: release all that is mapped of the files in which they lie, such as what an int8
            base was made of.
    """
    held = [weight for weight in weights if weight.device.type == "cpu" and weight.nbytes]
    if not all(_around(weight) for weight in held):
        _seen[:] = mapped_files()
    around = {range_of(weight): _around(weight) for weight in held}
    found = {file if whole_files else own for own, file in around.items() if file}
    for begin, end in sorted(found):
        for start, stop in _as_in_the_file(begin, end):
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _DO_NOT_NEED
            )


def release_freed() -> None:
    """Give the system the memory that the C library keeps free between what is in use.

    Without, what measuring probes or loading a base took for a moment stays with the process, and
    would be part of every later peak. Where the C library is not glibc nothing is done.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _as_in_the_file(begin: int, end: int) -> Iterator[Range]:
    """List the runs of whole pages in which nothing was written; none where that is not told."""
    first, last = begin // mmap.PAGESIZE, -(-end // mmap.PAGESIZE)
    with contextlib.suppress(OSError):
        with _PAGES.open("rb", buffering=0) as pages:
            pages.seek(first * _ENTRY.itemsize)
            entries = np.frombuffer(pages.read((last - first) * _ENTRY.itemsize), _ENTRY)
        held = (entries & (_PRESENT | _SWAPPED)) != 0
        written = held & ((entries & _OF_A_FILE) == 0)
        edges = np.flatnonzero(np.diff(~written, prepend=False, append=False))
        for start, stop in edges.reshape(-1, 2).tolist():
            yield (first + start) * mmap.PAGESIZE, (first + stop) * mmap.PAGESIZE


def _around(weight: torch.Tensor) -> Range | None:
    return next((file.place for file in _seen if file.holds(weight)), None)
