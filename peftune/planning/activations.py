"""What one forward and backward pass needs beside the weights: measured on some narrow blocks."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peftune.fastpath.linear_maps import Computing
from peftune.models.architecture import backbone_of, head_of, trainable_parameters
from peftune.planning.batches import Batch
from peftune.planning.passes import Evaluation, Formula, LiveBytes, Sampled, Training
from peftune.planning.shapes import Sample, only_blocks
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
        looks_back: whether weights as they were before are read while training.
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
    """Give the smallest learning weight a gradient, and see whether `zero_grad` leaves it."""
    smallest = min(trainable_parameters(model).values(), key=lambda weight: weight.numel())
    smallest.grad = torch.zeros_like(smallest)
    model.zero_grad()
    kept = smallest.grad is not None
    smallest.grad = None
    return kept


def held(model: nn.Module, conditions: Conditions) -> dict[str, nn.Parameter]:
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
    """Collect the calls of a backbone's own forward inside: the lean one, where it is used, makes none."""
    calls: list[object] = []
    backbone = backbone_of(model)
    handle = backbone.register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Leave out what is said of a training that begins: none does."""
    logger = logging.getLogger("peftune.training.fast_path")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


_FEW = 256
"""Tokens of the vocabulary that are read; the table is cut to them while passes are measured."""

_SHORT, _LONG = (16, 32), (136, 272)
"""Lengths at which a pass is measured. Bytes grow with the length and with its square (attention),
so that two tell the rest; texts beyond 128 tokens take another path through attention."""

_SHORT_UP_TO = 128


def measure_passes(
    model: nn.Module, sample: Sample, conditions: Conditions, *, longest: int
) -> Sampled:
    """Run passes of few tokens over few blocks, and count the bytes of their tensors.

    Args:
        model: hollow, of a narrow shape; its embedding is cut and its blocks change while this runs.
        sample: of its blocks.
        conditions: how it computes.
        longest: tokens of the longest text.
    """
    chosen = {id(block): block for blocks in sample.pairs for block in blocks}
    chosen.update({id(block): block for block in sample.blocks})
    lengths = _SHORT if longest <= _SHORT_UP_TO else _LONG
    together = list(chosen.values())
    with (
        few_tokens(model),
        only_blocks(model, together),
        held_so(model, conditions),
        _one_thread(),
    ):
        return Sampled(
            once=_training(model, sample.blocks, conditions, lengths),
            pairs=[_training(model, blocks, conditions, lengths) for blocks in sample.pairs],
            evaluation=_evaluation(model, sample.blocks, conditions, lengths),
        )


def _training(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    conditions: Conditions,
    lengths: tuple[int, int],
) -> Training:
    short, long = lengths
    batches = (Batch(1, short), Batch(1, long), Batch(2, long))
    with (
        only_blocks(model, blocks),
        training_forward(model, conditions),
        calls_of_backbone(model) as calls,
        LiveBytes(model) as live,
    ):
        step(model, batches[0])
        laid_out, known = _settled(live), len(live.products)
        one = _pass(model, batches[0], live)
        longer = _pass(model, batches[1], live)
        products = len(live.products) - known
        two = _pass(model, batches[2], live)
    # What is saved is a fixed part, and of each row one by its length and one by the square of it.
    row = two[0] - longer[0]
    fixed = longer[0] - row
    square = (row / long - (one[0] - fixed) / short) / (long - short)
    return Training(
        saved=Formula(fixed, row / long - square * long, square),
        temporary=_line(batches[0], one[1], batches[2], two[1]),
        laid_out=laid_out,
        products=products,
        lean=not calls,
    )


def _pass(model: nn.Module, batch: Batch, live: LiveBytes) -> tuple[int, int]:
    """Go forwards and backwards; return what was kept between, and what was needed beyond it."""
    before = _settled(live)
    live.restart()
    loss = loss_of(model, batch)
    saved = live.now - before
    loss.backward()
    del loss
    gradients = sum(
        0 if weight.grad is None else weight.grad.nbytes for weight in model.parameters()
    )
    beyond = max(0, live.peak - before - saved - gradients)
    model.zero_grad(set_to_none=True)
    return saved, beyond


def _evaluation(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    conditions: Conditions,
    lengths: tuple[int, int],
) -> Evaluation:
    small, large = Batch(2, lengths[0]), Batch(2, lengths[1])
    with (
        only_blocks(model, blocks),
        training_forward(model, conditions),
        calls_of_backbone(model) as calls,
        LiveBytes(model) as live,
    ):
        evaluate(model, small)
        known = len(live.products)
        needed = []
        for batch in (small, large):
            before = _settled(live)
            live.restart()
            evaluate(model, batch)
            needed.append(live.peak - before)
    return Evaluation(
        _line(small, needed[0], large, needed[1]),
        products=len(live.products) - known,
        lean=not calls,
    )


def _line(small: Batch, of_small: int, large: Batch, of_large: int) -> Formula:
    slope = max(0.0, (of_large - of_small) / (large.tokens - small.tokens))
    return Formula(max(0.0, of_small - slope * small.tokens), slope)


def _settled(live: LiveBytes) -> int:
    """Collect what only a cycle of references keeps of the last pass, and count what is left."""
    gc.collect(1)
    return live.now


@contextlib.contextmanager
def little_to_collect() -> Iterator[None]:
    """Let collections inside look at new objects alone, and happen where they are asked for.

    There are a million older ones, in which looking for garbage takes longer than a pass.
    """
    collects = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if collects:
            gc.enable()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread inside: there is little to do, and on a busy machine two wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
    own = {weight: weight.data for weight in held(model, conditions).values()}
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
    """Return a loss of random texts, with a graph: of the logits, or of all states where no head learns."""
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
