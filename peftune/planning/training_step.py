"""A training step on the model of a shape: how it computes, and how long it takes on this machine."""

from __future__ import annotations

import contextlib
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peftune.fastpath.linear_maps import Computing
from peftune.fastpath.products import Plain
from peftune.models.architecture import backbone_of, head_of, trainable_parameters
from peftune.planning.batches import Batch
from peftune.planning.shapes import Shape, ShapeModel, only_blocks, sample_of
from peftune.recipe import Recipe
from peftune.training.fast_path import fast_forward, kept_gradients, uses_bfloat16, worth_holding


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a training computes.

    Args:
        computing: products and their type.
        dropout: whether the backbone drops what its configuration says.
        bf16: whether it is computed in bfloat16.
        holds_bfloat16: whether the frozen backbone is held in bfloat16 as well.
        keeps_gradients: whether gradients keep their memory from step to step.
        looks_back: whether weights as they were before training are read while it runs.
    """

    computing: Computing
    dropout: bool
    bf16: bool
    holds_bfloat16: bool
    keeps_gradients: bool
    looks_back: bool


def conditions_of(model: nn.Module, recipe: Recipe, *, tokens: float) -> Conditions:
    """Decide as `peftune.training.train` does.

    Args:
        model: a prepared model of the full shape.
        recipe: a resolved recipe.
        tokens: of a training batch, in the mean.
    """
    section = recipe.training
    bf16 = uses_bfloat16(section.bf16, model)
    terms = any(term.weight > 0 for term in recipe.forgetting.regularizers)
    path = recipe.forgetting.path
    watched = recipe.forgetting.during_training or (path is not None and path.checkpoints)
    looked_at = bool(terms or watched)
    with kept_gradients(model):
        keeps = _keeps_gradients(model)
    return Conditions(
        computing=Computing.of(backbone_of(model).h, bf16=bf16, tokens=tokens),
        dropout=section.trunk_dropout,
        bf16=bf16,
        holds_bfloat16=bf16 and worth_holding(model, looked_at=looked_at),
        keeps_gradients=keeps,
        looks_back=looked_at,
    )


def _keeps_gradients(model: nn.Module) -> bool:
    """Return whether `zero_grad` leaves the gradient of the smallest trainable parameter."""
    smallest = min(trainable_parameters(model).values(), key=lambda weight: weight.numel())
    smallest.grad = torch.zeros_like(smallest)
    model.zero_grad()
    kept = smallest.grad is not None
    smallest.grad = None
    return kept


def bfloat16_weights(model: nn.Module, conditions: Conditions) -> dict[str, nn.Parameter]:
    """Return the weights that are held in bfloat16 while training, by name."""
    if not conditions.holds_bfloat16:
        return {}
    return {
        name: weight
        for name, weight in backbone_of(model).named_parameters()
        if not weight.requires_grad and weight.is_floating_point()
    }


@contextlib.contextmanager
def training_forward(model: nn.Module, conditions: Conditions) -> Iterator[nn.Module]:
    """Let a model compute inside as it does in a training."""
    device = backbone_of(model).wte.weight.device.type
    with (
        _without_notes(),
        fast_forward(model, conditions.computing, dropout=conditions.dropout),
        torch.autocast(device, torch.bfloat16, enabled=conditions.bf16),
    ):
        yield model


@contextlib.contextmanager
def calls_of_backbone(model: nn.Module) -> Iterator[list[object]]:
    """Collect the calls of a backbone's own forward inside: the fast path makes none."""
    calls: list[object] = []
    backbone = backbone_of(model)
    handle = backbone.register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Suppress the messages of a training that starts: none does."""
    logger = logging.getLogger("peftune.training.fast_path")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


_FEW = 256
"""Tokens of the vocabulary that are read; the table is cut to them while passes are measured."""


@contextlib.contextmanager
def few_tokens(model: nn.Module) -> Iterator[None]:
    """Cut the embedding to a few tokens inside: a gradient of all of it takes time and tells nothing."""
    weight = backbone_of(model).wte.weight
    own = weight.data
    weight.data = own[:_FEW].clone()
    try:
        yield
    finally:
        weight.data = own


@contextlib.contextmanager
def held_so(model: nn.Module, conditions: Conditions) -> Iterator[None]:
    """Hold in bfloat16 what a training holds so, inside."""
    own = {weight: weight.data for weight in bfloat16_weights(model, conditions).values()}
    for weight in own:
        weight.data = weight.data.to(torch.bfloat16)
    try:
        yield
    finally:
        for weight, data in own.items():
            weight.data = data


def _inputs(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Make texts of one length, without the token that pads: (rows, time), int64."""
    device = backbone_of(model).wte.weight.device
    tokens = torch.randint(1, _FEW, (batch.rows, batch.time), device=device)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return a loss of random texts, with a graph: of the logits, or of all states where no head is trainable."""
    inputs = _inputs(model, batch)
    if any(weight.requires_grad for weight in head_of(model).parameters()):
        logits: torch.Tensor = model(**inputs).logits
        return logits.float().square().mean()
    states: torch.Tensor = model(**inputs, output_hidden_states=True).hidden_states[-1]
    return states.float().square().mean()


def step(model: nn.Module, batch: Batch) -> None:
    """Go forwards and backwards once."""
    loss_of(model, batch).backward()
    model.zero_grad(set_to_none=True)


def evaluate(model: nn.Module, batch: Batch) -> None:
    """Go forwards once as an evaluation does."""
    model.eval()
    try:
        with torch.no_grad():
            model(**_inputs(model, batch))
    finally:
        model.train()


# Its time

_PRODUCT_SECONDS = 0.05
_COPY_SECONDS = 0.1
_BLOCK_SECONDS = 1.2
"""How long is measured: each width, the copying, and the blocks of all strategies together."""

_COPIED = 64 * 2**20
_MOVED_PER_WEIGHT = 40
"""Bytes that AdamW and the norm of the gradients move for each trainable parameter, in float32."""


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
    prepared: ShapeModel, conditions: Conditions, machine: Machine, batch: Batch, *, share: float
) -> Pace:
    """Time a block's forward and backward pass: a backbone with it against one without.

    Args:
        prepared: of the recipe's own shape.
        conditions: how it computes.
        machine: its rates.
        batch: of the mean size.
        share: of the time for blocks.
    """
    model, device = prepared.model, backbone_of(prepared.model).wte.weight.device
    sample = sample_of(model)
    shorter, longer = sample.blocks, sample.blocks
    if sample.pairs:
        longer = sample.pairs[sample.more.index(max(sample.more))]
    rows = _affordable(prepared, conditions, machine, batch, share)
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
        # A frozen weight is multiplied forwards and backwards, a trainable one once more.
        products=min(bare * (1 + learning / (24 * width * width)), block * scale),
        width=width,
        dtype=_name(conditions.computing.dtype),
    )


def _affordable(
    prepared: ShapeModel, conditions: Conditions, machine: Machine, batch: Batch, share: float
) -> int:
    """Return how many rows are timed, so that a few passes fit into the time."""
    width = _width(prepared.model)
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
    """Return the seconds that the optimizer takes for so many trainable parameters."""
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
