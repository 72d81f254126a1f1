"""The most memory that a stretch of work needs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

import torch
from typing_extensions import Self

from peftune.models.memory import release_freed

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """Measure peak memory inside a `with` block.

    On a CPU: the peak resident set of the process, libraries included, in bytes; None where the
    system does not tell (it is Linux that does). On CUDA: the peak of allocated device memory.

    Args:
        device: where the work happens.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_bytes: int | None = None
        self._resettable = False

    def __enter__(self) -> Self:
        """Forget earlier peaks, and give back what earlier work has freed."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            release_freed()
            with contextlib.suppress(OSError):
                _CLEAR.write_text(_RESET_PEAK)
                self._resettable = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Read the peak."""
        if self.device.type == "cuda":
            self.peak_bytes = int(torch.cuda.max_memory_allocated(self.device))
        elif self._resettable:
            self.peak_bytes = _peak_resident_bytes()


def _peak_resident_bytes() -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
