"""How long a user waits before anything heavy is needed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

COMMANDS: dict[str, Sequence[str]] = {
    "python": ["-c", "pass"],
    "import peftune": ["-c", "import peftune"],
    "peftune --help": ["-m", "peftune", "--help"],
    "peftune validate": ["-m", "peftune", "validate", "quickstart"],
}


def startup(environment: Mapping[str, str], *, repeats: int) -> dict[str, list[float]]:
    """Return milliseconds of each command, taken in turns after a first one that does not count.

    Args:
        environment: of the processes.
        repeats: how often each is started.
    """
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(repeats + 1):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(  # noqa: S603 - our own interpreter
                [sys.executable, *arguments],
                env=dict(environment),
                stdout=subprocess.DEVNULL,
                check=True,
            )
            if turn:
                found[name].append(1000 * (time.perf_counter() - started))
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median milliseconds of each command."""
    return {name: statistics.median(values) for name, values in found.items()}
