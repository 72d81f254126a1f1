"""The floor: what one training step takes at least, at the rates that the machine showed.

The operations of a step are counted by formula, and divided by the rate at which the machine
multiplied matrices of those very shapes; what is bound by memory is divided by the rate of a copy. No
program reaches it: nothing between the products is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders.setup import RANK
from benchmarks.shapes import Shape

_BYTES = {"fp32": 4, "bf16": 2}
_ADAMW_BYTES = 28
"""A float32 step of AdamW on one weight: weight and both moments read and written, gradient read."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step.

    Args:
        strategy: `full`, `lora` or `lora-8bit`.
        tokens: real tokens in it.
        rows: texts in it.
    """

    strategy: str
    tokens: int
    rows: int


def forward_operations(shape: Shape, *, tokens: int, rows: int) -> int:
    """Count multiplications and additions of a pass through the blocks: `2N + 2Ld(S+1)` a token."""
    attention = 2 * shape.layers * shape.width * (tokens + rows) * tokens / rows
    return int(2 * shape.block_weights * tokens + attention)


def adapter_parameters(shape: Shape) -> int:
    """Count the weights of the benchmark's adapter: `r (d + 3d)` a block."""
    return RANK * 4 * shape.width * shape.layers


def training_operations(shape: Shape, step: Step) -> int:
    """Count a step's operations: three passes where all learns, two and the adapter's otherwise."""
    forward = forward_operations(shape, tokens=step.tokens, rows=step.rows)
    if step.strategy == "full":
        return 3 * forward
    return 2 * forward + 6 * adapter_parameters(shape) * step.tokens


def floor_seconds(shape: Shape, step: Step, rates: Mapping[str, Any]) -> dict[str, float]:
    """Return the least seconds of a step in each precision that was measured.

    Args:
        shape: the base's.
        step: what is done.
        rates: from `benchmarks.jobs.rates`.
    """
    products = [found for found in rates["products"] if found["tokens"] == step.tokens]
    copy = float(rates["copy_bytes_per_second"])
    floors = {}
    for precision in {found["precision"] for found in products}:
        mine = [found for found in products if found["precision"] == precision]
        floors[precision] = _in_precision(shape, step, mine, copy, _BYTES[precision])
    return floors


def _in_precision(
    shape: Shape, step: Step, products: list[dict[str, Any]], copy: float, size: int
) -> float:
    phases = ["forward", "input_gradient"]
    if step.strategy == "full":
        phases.append("weight_gradient")
    seconds = 0.0
    for found in products:
        if found["phase"] not in phases:
            continue
        inner, outer = found["inner"], found["outer"]
        operations = 2 * step.tokens * inner * outer
        moved = size * (inner * outer + step.tokens * (inner + outer))
        seconds += shape.layers * max(operations / found["flops_per_second"], moved / copy)
    best: float = max(found["flops_per_second"] for found in products)
    linear = len(phases) * 2 * shape.block_weights * step.tokens
    others = training_operations(shape, step) - linear
    learning = shape.parameters if step.strategy == "full" else adapter_parameters(shape)
    return seconds + others / best + _ADAMW_BYTES * learning / copy
