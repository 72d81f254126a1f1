"""Which precision the hand-tuned contender is faster in, on this machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from benchmarks.clock import StepClock
from benchmarks.contenders import contender
from benchmarks.contenders.setup import Setup

PRECISIONS = ("fp32", "bf16")


def run(name: str, setup: dict[str, Any], *, warm_up: int) -> dict[str, Any]:
    """Train a few steps in each precision; the smaller median step wins.

    Args:
        name: the contender.
        setup: fields of `Setup`.
        warm_up: steps at the beginning that do not count.
    """
    steps = {}
    for precision in PRECISIONS:
        clock = StepClock()
        work = dataclasses.replace(Setup(**setup), precision=precision)
        contender(name).build(work).train([clock])
        steps[precision] = float(np.median(clock.seconds[warm_up:]))
    return {"step_seconds": steps, "precision": min(steps, key=lambda key: steps[key])}
