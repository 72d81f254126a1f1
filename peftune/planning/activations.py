"""What one forward and backward pass needs beside the weights: measured on some narrow blocks."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftune.planning.batches import Batch
from peftune.planning.shapes import Sample, only_blocks
from peftune.planning.training_step import (
    Conditions,
    calls_of_backbone,
    evaluate,
    few_tokens,
    held_so,
    loss_of,
    step,
    training_forward,
)


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

    def wider(self, times: float) -> Formula:
        """Carry it over to a wider shape, of as many more heads.

        A token has so many more numbers, and attention so many more heads; what does not depend on
        the batch is made of weights, which grow with the square of the width.
        """
        return Formula(self.fixed * times**2, self.linear * times, self.square * times)


@dataclass(frozen=True, slots=True)
class Training:
    """What a forward and backward pass needs beside the weights and gradients.

    Args:
        saved: bytes that the forward pass keeps for the backward pass.
        temporary: bytes that are needed for a moment on top of that.
        laid_out: bytes of copies of weights that are made at the first pass and stay.
        products: for which oneDNN makes machine code at each length.
        fast: whether the fast path computes it, and not the model's own forward.
    """

    saved: Formula
    temporary: Formula
    laid_out: int
    products: int
    fast: bool

    def at(self, batch: Batch) -> int:
        """Return the most bytes that a pass of a batch needs."""
        return self.saved.at(batch) + self.temporary.at(batch)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a forward pass without gradients needs beside the weights.

    Args:
        temporary: bytes that are needed for a moment.
        products: for which oneDNN makes machine code at each length.
        fast: whether the fast path computes it, and not the model's own forward.
    """

    temporary: Formula
    products: int
    fast: bool


@dataclass(frozen=True, slots=True)
class Passes:
    """What passes of a shape need."""

    training: Training
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Sampled:
    """Passes through a sample of a narrow shape's blocks.

    Args:
        once: through the sample.
        pairs: through the sample with a second block of each kind that there are more of.
        evaluation: through the sample.
    """

    once: Training
    pairs: Sequence[Training]
    evaluation: Evaluation

    def of(self, more: Sequence[int], *, wider: float) -> Passes:
        """Add up passes through all blocks of a shape.

        Args:
            more: how many more than one there are of each of these kinds.
            wider: by how much the shape is wider than the narrow one.
        """
        saved, laid_out = self.once.saved, self.once.laid_out
        for pair, times in zip(self.pairs, more, strict=True):
            saved = saved.plus(pair.saved.plus(self.once.saved, -1), times)
            laid_out += times * (pair.laid_out - self.once.laid_out)
        return Passes(
            dataclasses.replace(
                self.once,
                saved=saved.wider(wider),
                temporary=self.once.temporary.wider(wider),
                laid_out=round(laid_out * wider**2),
            ),
            dataclasses.replace(self.evaluation, temporary=self.evaluation.temporary.wider(wider)),
        )


_ONEDNN = "mkldnn::_linear_pointwise"
_PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")}
"""Products that are oneDNN's on a CPU: the first always, the others in bfloat16 (in float32 they are MKL's)."""


class LiveBytes(TorchDispatchMode):
    """Count inside a `with` block what operators allocate, temporaries too.

    What a graph holds for its backward pass is alive, however it is held: an autograd function may
    keep a tensor as an attribute, which hooks of saved tensors do not see.

    Args:
        model: whose weights were there before, and are not counted.

    Attributes:
        now: bytes that are alive.
        peak: most bytes that were alive since `restart`.
        products: different products for which oneDNN makes machine code on a CPU: by operator,
            sizes and strides.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self.products: set[Hashable] = set()
        self._known = {_key(tensor) for tensor in _tensors_of(model)}

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak = self.now

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the operator returns
        """Run an operator and count what it made."""
        found = func(*args, **(kwargs or {}))
        if _is_onednn(func.name(), found):
            self.products.add((func, *map(_layout, args)))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return found

    def _count(self, tensor: torch.Tensor) -> None:
        key, size = _key(tensor), _bytes_of(tensor)
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(_holder(tensor), self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _is_onednn(name: str, found: torch.Tensor) -> bool:
    halved = name in _PRODUCTS and found.dtype == torch.bfloat16
    return found.device.type == "cpu" if name == _ONEDNN or halved else False


def _layout(argument: object) -> Hashable:
    if not isinstance(argument, torch.Tensor):
        return None
    return argument.shape, None if argument.is_mkldnn else argument.stride()


def _tensors_of(model: nn.Module) -> Iterable[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _holder(tensor: torch.Tensor) -> Any:  # noqa: ANN401 - a storage, or a tensor that has none
    """Return what lives exactly as long as the memory; weights laid out by oneDNN have no storage."""
    return tensor if tensor.is_mkldnn else tensor.untyped_storage()


def _key(tensor: torch.Tensor) -> int:
    return id(tensor) if tensor.is_mkldnn else int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - the storage's identity


def _bytes_of(tensor: torch.Tensor) -> int:
    if tensor.is_mkldnn:
        return tensor.numel() * tensor.element_size()
    return tensor.untyped_storage().nbytes()


# Measuring

_SHORT, _LONG = (16, 32), (136, 272)
"""Lengths at which a pass is measured. Bytes grow with the length and with its square (attention),
so that two tell the rest; texts beyond 128 tokens take another path through attention."""

_SHORT_UP_TO = 128


def measure_passes(
    model: nn.Module, sample: Sample, conditions: Conditions, *, longest: int
) -> Sampled:
    """Run passes of few tokens over few blocks, and count the bytes of their tensors.

    Args:
        model: of a narrow shape; its embedding is cut and its blocks change while this runs.
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
        fast=not calls,
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
        fast=not calls,
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
