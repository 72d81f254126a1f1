"""Count the bytes of tensors that are alive, as operators make them and the last reference goes."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
