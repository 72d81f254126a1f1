"""Three seconds of this machine: what it multiplies and copies, and what a block takes on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peftune.fastpath.products import Plain
from peftune.models.architecture import backbone_of
from peftune.planning.activations import Conditions, few_tokens, held_so, step, training_forward
from peftune.planning.batches import Batch
from peftune.planning.shapes import Hollow, Shape, only_blocks, sample_of

_PRODUCT_SECONDS = 0.05
_COPY_SECONDS = 0.1
_BLOCK_SECONDS = 1.2
"""How long is measured: each width, the copying, and the blocks of all strategies together."""

_COPIED = 64 * 2**20
_MOVED_PER_WEIGHT = 40
"""Bytes that AdamW and the norm of the gradients move for each learning weight, in float32."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured of the hardware.

    Args:
        threads: that torch computes with.
        products: multiplications and additions a second, in units of 1e9, by type and width.
        copied: bytes a second that are read and written, in units of 1e9.
    """

    threads: int
    products: Mapping[str, Mapping[int, float]]
    copied: float


@dataclass(frozen=True, slots=True)
class Pace:
    """What a pass over a batch takes with a strategy, at the recipe's own shape.

    Args:
        block: seconds of a block.
        rest: seconds of everything else: embedding, head, and the parts of the last block.
        products: seconds of a block that its products take at the machine's rate.
        width: of the shape.
        dtype: that is computed in.
    """

    block: float
    rest: float
    products: float
    width: int
    dtype: str


def measure_machine(
    shapes: Sequence[Shape], types: Sequence[torch.dtype], *, tokens: int, device: torch.device
) -> Machine:
    """Measure rates of products and of copying.

    Args:
        shapes: whose widths count.
        types: that products are computed in.
        tokens: of a batch.
        device: where.
    """
    widths = sorted({shape.width for shape in shapes})
    rates = {
        _name(dtype): {width: _product_rate(tokens, width, dtype, device) for width in widths}
        for dtype in types
    }
    return Machine(torch.get_num_threads(), rates, _copy_rate(device))


def _product_rate(tokens: int, width: int, dtype: torch.dtype, device: torch.device) -> float:
    x = torch.ones(min(tokens, 1024), width, dtype=dtype, device=device)
    product = Plain(torch.ones(width, 4 * width, dtype=dtype, device=device))
    seconds = fastest(lambda: product.forward(x, None), device, budget=_PRODUCT_SECONDS)
    return 2 * x.numel() * 4 * width / seconds / 1e9


def _copy_rate(device: torch.device) -> float:
    source = torch.ones(_COPIED // 4, device=device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), device, budget=_COPY_SECONDS)
    return 2 * _COPIED / seconds / 1e9


def measure_pace(
    hollow: Hollow, conditions: Conditions, machine: Machine, batch: Batch, *, share: float
) -> Pace:
    """Time a block's forward and backward pass: a backbone with it against one without.

    Args:
        hollow: of the recipe's own shape.
        conditions: how it computes.
        machine: its rates.
        batch: of the mean size.
        share: of the time for blocks.
    """
    model, device = hollow.model, backbone_of(hollow.model).wte.weight.device
    sample = sample_of(model)
    shorter, longer = sample.blocks, sample.blocks
    if sample.pairs:
        longer = sample.pairs[sample.more.index(max(sample.more))]
    rows = _affordable(hollow, conditions, machine, batch, share)
    shape = Batch(rows, batch.time)
    seconds = []
    with few_tokens(model), only_blocks(model, longer), held_so(model, conditions):
        for chosen in (shorter, longer):
            with only_blocks(model, chosen), training_forward(model, conditions):
                budget = share * _BLOCK_SECONDS / 2
                seconds.append(fastest(lambda: step(model, shape), device, budget=budget))
    scale, width = batch.rows / rows, _width(model)
    block = seconds[1] - seconds[0] if sample.pairs else seconds[0] / len(shorter)
    block = max(block, 0.0)
    bare = _product_seconds(width, batch.tokens, _rate(machine, conditions, width))
    middle = longer[len(longer) // 2]
    learning = sum(weight.numel() for weight in middle.parameters() if weight.requires_grad)
    return Pace(
        block=block * scale,
        rest=max(seconds[0] - len(shorter) * block, 0.0) * scale,
        # A frozen weight is multiplied forwards and backwards, a learning one once more.
        products=min(bare * (1 + learning / (24 * width * width)), block * scale),
        width=width,
        dtype=_name(conditions.computing.dtype),
    )


def _affordable(
    hollow: Hollow, conditions: Conditions, machine: Machine, batch: Batch, share: float
) -> int:
    """Return how many rows are timed, so that a few passes fit into the time."""
    width = _width(hollow.model)
    one = _product_seconds(width, batch.time, _rate(machine, conditions, width))
    passes = 4 * 5  # five blocks in two backbones, a few times each, and slower than bare products
    return max(1, min(batch.rows, int(share * _BLOCK_SECONDS / max(passes * one, 1e-9))))


def _product_seconds(width: int, tokens: int, rate: float) -> float:
    """Return what forward and backward products of a frozen block take at a rate."""
    return 2 * 2 * 12 * width * width * tokens / (rate * 1e9)


def _rate(machine: Machine, conditions: Conditions, width: int) -> float:
    return machine.products[_name(conditions.computing.dtype)][width]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _width(model: nn.Module) -> int:
    return int(backbone_of(model).config.n_embd)


def seconds_of_pass(pace: Pace, shape: Shape, machine: Machine, dtype: torch.dtype) -> float:
    """Carry the pace at the recipe's own shape over to another one.

    Products grow with the square of the width, and go at the rate of their width and type; all
    else grows with the width.
    """
    wider = shape.width / pace.width
    slower = machine.products[pace.dtype][pace.width] / machine.products[_name(dtype)][shape.width]
    block = pace.products * wider**2 * slower + (pace.block - pace.products) * wider
    return shape.blocks * block + pace.rest * wider


def seconds_of_step(learning: int, machine: Machine) -> float:
    """Return what the optimizer takes for so many learning weights."""
    return learning * _MOVED_PER_WEIGHT / (machine.copied * 1e9)


def fastest(act: Callable[[], object], device: torch.device, *, budget: float) -> float:
    """Return the median of the faster half of several times, in seconds; the first is not counted.

    Args:
        act: what is timed.
        device: where it computes.
        budget: seconds that all together may take; it is done twice at least.
    """
    act()
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < budget:
        _finish(device)
        begun = time.perf_counter()
        act()
        _finish(device)
        times.append(time.perf_counter() - begun)
    times.sort()
    return statistics.median(times[: (len(times) + 1) // 2])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
