"""What one forward and backward pass needs beside the weights: measured on some blocks, added up for all."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peftune.models.parts import head_of, trunk_of
from peftune.planning.batches import Batch
from peftune.planning.forward import Conditions, held, training_forward
from peftune.planning.hollow import Hollow, mapped_weights
from peftune.planning.live import LiveBytes
from peftune.planning.sample import only_blocks, sample_of

_FEW = 256
"""Tokens of the vocabulary that are read; the table is cut to them while passes are measured."""

_SHORT, _LONG = (16, 32), (136, 272)
"""Lengths at which a pass is measured. Bytes grow with the length and with its square (attention),
so that two tell the rest; texts beyond 128 tokens take another path through attention."""

_SHORT_UP_TO = 128


@dataclass(frozen=True, slots=True)
class Formula:
    """Bytes of a batch: `fixed + tokens * linear + tokens * time * square`."""

    fixed: float
    linear: float
    square: float = 0.0

    def at(self, batch: Batch) -> int:
        """Return the bytes of a batch."""
        each = self.linear + self.square * batch.time
        return max(0, round(self.fixed + batch.tokens * each))

    def plus(self, other: Formula, times: int) -> Formula:
        """Add another one, several times."""
        return Formula(
            self.fixed + times * other.fixed,
            self.linear + times * other.linear,
            self.square + times * other.square,
        )


@dataclass(frozen=True, slots=True)
class Passes:
    """What passes need beside the weights and gradients, in bytes.

    Args:
        saved: what the forward pass of a training keeps for the backward pass.
        temporary: what is needed for a moment on top of that.
        evaluation: what a forward pass without gradients needs for a moment.
        laid_out: copies of weights that are made at the first pass and stay.
        mapped: whether weights still lie in the checkpoint's own file then.
    """

    saved: Formula
    temporary: Formula
    evaluation: Formula
    laid_out: int
    mapped: bool

    def training(self, batch: Batch) -> int:
        """Return the most bytes that a forward and backward pass of a batch needs."""
        return self.saved.at(batch) + self.temporary.at(batch)


def measure_passes(hollow: Hollow, conditions: Conditions, *, longest: int) -> Passes:
    """Run passes of few tokens over few blocks, and work out those of any batch over all of them.

    Args:
        hollow: from `prepare_hollow`; its embedding is cut and its blocks change while this runs.
        conditions: how it computes.
        longest: tokens of the longest text.
    """
    model = hollow.model
    sample = sample_of(model)
    chosen = {id(block): block for blocks, _ in sample.kinds for block in blocks}
    chosen.update({id(block): block for block in sample.blocks})
    lengths = _SHORT if longest <= _SHORT_UP_TO else _LONG
    together = list(chosen.values())
    with few_tokens(model), only_blocks(model, together), held_so(model, conditions), _frozen():
        mapped = bool(mapped_weights(trunk_of(model), hollow.folder))
        once = _training(model, sample.blocks, conditions, lengths)
        saved, laid_out = once.saved, once.laid_out
        for blocks, more in sample.kinds:
            twice = _training(model, blocks, conditions, lengths)
            saved = saved.plus(twice.saved.plus(once.saved, -1), more)
            laid_out += more * (twice.laid_out - once.laid_out)
        evaluation = _evaluation(model, sample.blocks, conditions, lengths)
    return Passes(saved, once.temporary, evaluation, laid_out, mapped)


@dataclass(frozen=True, slots=True)
class _Measured:
    saved: Formula
    temporary: Formula
    laid_out: int


def _training(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    conditions: Conditions,
    lengths: tuple[int, int],
) -> _Measured:
    short, long = lengths
    batches = (Batch(1, short), Batch(1, long), Batch(2, long))
    with only_blocks(model, blocks), training_forward(model, conditions), LiveBytes(model) as live:
        step(model, batches[0])
        laid_out = _settled(live)
        one, longer, two = (_pass(model, batch, live) for batch in batches)
    # What is saved is a fixed part, and of each row one by its length and one by the square of it.
    row = two[0] - longer[0]
    fixed = longer[0] - row
    square = (row / long - (one[0] - fixed) / short) / (long - short)
    saved = Formula(fixed, row / long - square * long, square)
    return _Measured(saved, _line(batches[0], one[1], batches[2], two[1]), laid_out)


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
) -> Formula:
    small, large = Batch(1, lengths[0]), Batch(2, lengths[1])
    with only_blocks(model, blocks), training_forward(model, conditions), LiveBytes(model) as live:
        evaluate(model, small)
        needed = []
        for batch in (small, large):
            before = _settled(live)
            live.restart()
            evaluate(model, batch)
            needed.append(live.peak - before)
    return _line(small, needed[0], large, needed[1])


def _line(small: Batch, of_small: int, large: Batch, of_large: int) -> Formula:
    slope = max(0.0, (of_large - of_small) / (large.tokens - small.tokens))
    return Formula(max(0.0, of_small - slope * small.tokens), slope)


def _settled(live: LiveBytes) -> int:
    """Collect what only a cycle of references keeps, and count what is left."""
    gc.collect()
    return live.now


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Let collections inside look at new objects alone: there are a million older ones."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def few_tokens(model: nn.Module) -> Iterator[None]:
    """Cut the embedding to a few tokens inside: a gradient of all of it takes time and tells nothing."""
    weight = trunk_of(model).wte.weight
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
    device = trunk_of(model).wte.weight.device
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
