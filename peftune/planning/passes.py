"""What passes need beside the weights, as formulas that hold for any batch, depth and width."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftune.planning.batches import Batch


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
        lean: whether peftune computes it, and not the model's own forward.
    """

    saved: Formula
    temporary: Formula
    laid_out: int
    products: int
    lean: bool

    def at(self, batch: Batch) -> int:
        """Return the most bytes that a pass of a batch needs."""
        return self.saved.at(batch) + self.temporary.at(batch)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a forward pass without gradients needs beside the weights.

    Args:
        temporary: bytes that are needed for a moment.
        products: for which oneDNN makes machine code at each length.
        lean: whether peftune computes it, and not the model's own forward.
    """

    temporary: Formula
    products: int
    lean: bool


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
