"""How fast this machine multiplies matrices of a model's own shapes, and copies memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from peftune.fastpath.products import lays_out

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PHASES = ("forward", "input_gradient", "weight_gradient")

_DISTINCT_BYTES = 2**28
"""Weights that take turns, so that none is still in a cache from the last time; a step uses each once."""
_COPIED_BYTES = 2**28
_REPEATS = 3

Way = tuple[str, Callable[[], object]]


def run(
    layers: int,
    width: int,
    *,
    tokens: Sequence[int],
    weight_gradients: bool,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """Measure each product of a training step in each precision, and the best way to do it.

    Args:
        layers: blocks, each with weights of its own.
        width: hidden size.
        tokens: real tokens of a step, one figure for each batch size.
        weight_gradients: whether the weights are trained.
        device: `cpu` or `cuda`.
        seconds: least time of one measurement.
    """
    found = []
    for precision, dtype in PRECISIONS.items():
        for inner, outer in linear_shapes(width):
            weights = _weights(layers, inner, outer, dtype, device)
            for count in tokens:
                for phase in PHASES if weight_gradients else PHASES[:2]:
                    ways = {
                        name: len(weights) * 2 * count * inner * outer / _best(call, seconds)
                        for name, call in _ways(phase, count, weights)
                    }
                    best = max(ways, key=lambda way: ways[way])
                    found.append(
                        {
                            "precision": precision,
                            "phase": phase,
                            "tokens": count,
                            "inner": inner,
                            "outer": outer,
                            "flops_per_second": ways[best],
                            "way": best,
                            "ways": ways,
                        }
                    )
    return {"products": found, "copy_bytes_per_second": _copy_rate(device, seconds)}


def linear_shapes(width: int) -> list[tuple[int, int]]:
    """List the linear layers of a block as (inputs, outputs)."""
    return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]


def _weights(
    layers: int, inner: int, outer: int, dtype: torch.dtype, device: str
) -> list[torch.Tensor]:
    bytes_each = inner * outer * dtype.itemsize
    count = min(layers, max(2, _DISTINCT_BYTES // bytes_each))
    return [torch.randn(inner, outer, device=device).to(dtype) for _ in range(count)]


def _ways(phase: str, tokens: int, weights: Sequence[torch.Tensor]) -> Iterator[Way]:
    """Give each way to do one phase's products with all weights, (inputs, outputs) each."""
    inner, outer = weights[0].shape
    states = torch.randn(tokens, inner).to(weights[0])
    gradients = torch.randn(tokens, outer).to(weights[0])
    bias = torch.randn(outer).to(weights[0])
    if phase == "weight_gradient":
        yield "mm", lambda: [states.t() @ gradients for _ in weights]
        return
    if phase == "forward":
        transposed = [weight.t().contiguous() for weight in weights]
        yield "addmm", lambda: [torch.addmm(bias, states, weight) for weight in weights]
        yield "linear", lambda: [F.linear(states, weight, bias) for weight in transposed]
        yield from _packed(states, transposed, bias)
        return
    yield "mm", lambda: [gradients @ weight.t() for weight in weights]
    yield "linear", lambda: [F.linear(gradients, weight) for weight in weights]
    yield from _packed(gradients, weights, None)


def _packed(
    inputs: torch.Tensor, weights: Sequence[torch.Tensor], bias: torch.Tensor | None
) -> Iterator[Way]:
    """Give oneDNN's product with weights laid out for it once, where there is one.

    Args:
        inputs: (tokens, inputs).
        weights: (outputs, inputs) each.
        bias: (outputs,).
    """
    if inputs.device.type != "cpu" or not lays_out(inputs.dtype):
        return
    onednn = torch.ops.mkldnn
    packed = [onednn._reorder_linear_weight(weight, len(inputs)) for weight in weights]  # noqa: SLF001 - inductor's own call
    yield (
        "packed",
        lambda: [
            onednn._linear_pointwise(inputs, weight, bias, "none", [], "")  # noqa: SLF001
            for weight in packed
        ],
    )


def _copy_rate(device: str, seconds: float) -> float:
    """Return bytes read and written a second by a copy that no cache holds."""
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _best(lambda: target.copy_(source), seconds)


@torch.no_grad()
def _best(call: Callable[[], object], seconds: float) -> float:
    """Return the seconds of a call at its best, over several stretches of time."""
    call()
    found = []
    for _ in range(_REPEATS):
        calls, started = 0, _now()
        while not calls or _now() - started < seconds:
            call()
            calls += 1
        found.append((_now() - started) / calls)
    return min(found)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
