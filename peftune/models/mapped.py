"""Where files are mapped into memory, and weights as they are in their file."""

from __future__ import annotations

import contextlib
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
    when the weight that lies in memory learns.
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
