"""How soon a contender reaches an accuracy, and where it ends, over several seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks.clock import StepClock
from benchmarks.contenders import contender
from benchmarks.contenders.setup import Setup
from benchmarks.rows import read_rows


def run(name: str, setup: dict[str, Any], *, seeds: Sequence[int], test: str) -> dict[str, Any]:
    """Train with each seed, scored on the way, and classify the test rows with the last weights.

    Args:
        name: the contender.
        setup: fields of `Setup`, with rows to be scored on the way.
        seeds: one training each.
        test: JSON lines of the test rows.
    """
    rows = read_rows(test)
    found = []
    for seed in seeds:
        clock = StepClock()
        session = contender(name).build(dataclasses.replace(Setup(**setup), seed=seed))
        session.train([clock])
        said = session.classifier()([row.text for row in rows])
        right = [int(label == row.label) for label, row in zip(said, rows, strict=True)]
        found.append({"seed": seed, "curve": clock.scores, "right": right})
    return {"seeds": found}
