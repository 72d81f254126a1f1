"""Matrix products with one weight, forward and backward: the fastest that this processor has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
"""What Linux calls the instructions of x86 and ARM that multiply bfloat16."""


@functools.cache
def multiplies_bfloat16() -> bool:
    """Say whether this CPU has instructions that multiply bfloat16."""
    flags = _processor_values("flags", "Features")
    return not _BFLOAT16.isdisjoint(flag for line in flags for flag in line.split())


@functools.cache
def is_intels() -> bool:
    """Say whether this CPU is Intel's, for which MKL is made."""
    return "GenuineIntel" in _processor_values("vendor_id")


def _processor_values(*names: str) -> set[str]:
    """Return what stands beside names, of all processors; nothing where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    pairs = (line.partition(":") for line in lines)
    return {value.strip() for name, _, value in pairs if name.strip() in names}


class Product(Protocol):
    """`y = x W + b` of one weight `W`, (inputs, outputs), and the way back."""

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x W + b`: (tokens, inputs) -> (tokens, outputs)."""
        ...

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return `g Wᵀ`: (tokens, outputs) -> (tokens, inputs)."""
        ...


@functools.cache
def has_onednn() -> bool:
    """Say whether oneDNN's product can be called on plain tensors of this build of torch."""
    found: bool = torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    )
    return found


@functools.cache
def lays_out(dtype: torch.dtype) -> bool:
    """Say whether oneDNN lays out weights of a type on this processor; bfloat16 takes AVX-512 or newer."""
    if dtype != torch.bfloat16 or not has_onednn():
        return has_onednn()
    found: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 - what torch.compile calls
    return found


@functools.cache
def mkl_is_fast() -> bool:
    """Say whether what torch asks on this CPU is MKL, and the CPU is Intel's, for which that is made."""
    return torch.backends.mkl.is_available() and is_intels()


def float32_products(device: torch.device) -> str:
    """Name the libraries that take float32 products on a device, whose last bits differ."""
    if device.type != "cpu" or not has_onednn():
        return "torch"
    return "onednn, mkl" if mkl_is_fast() else "onednn"


class Plain:
    """The product of a weight as it lies in memory.

    Whether oneDNN takes it or the library that torch chooses, `onednn_gains` decides.

    Args:
        weight: (inputs, outputs), of any strides, in the type that is computed in.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x W + b`: (tokens, inputs) -> (tokens, outputs)."""
        if onednn_gains(x, self._weight.t()):
            return _onednn(x, self._weight.t(), bias)
        return x @ self._weight if bias is None else torch.addmm(bias, x, self._weight)

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return `g Wᵀ`: (tokens, outputs) -> (tokens, inputs)."""
        if onednn_gains(gradient, self._weight):
            return _onednn(gradient, self._weight, None)
        return gradient @ self._weight.t()


Read = Callable[[], AbstractContextManager[torch.Tensor]]
"""Gives a weight for as long as it is looked at."""


class Packed:
    """The product of a weight that does not change, laid out as oneDNN reads it fastest.

    It makes a copy of the weight for each direction when that is taken first, and holds it.

    Args:
        read: gives the weight, (inputs, outputs), on a CPU, in the type that is computed in.
        tokens: rows that a product will mostly have.
    """

    def __init__(self, read: Read, *, tokens: int) -> None:
        self._read, self._tokens = read, tokens
        self._forwards: torch.Tensor | None = None
        self._backwards: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x W + b`: (tokens, inputs) -> (tokens, outputs)."""
        if self._forwards is None:
            with self._read() as weight:
                self._forwards = self._laid_out(weight.t())
        return _onednn(x, self._forwards, bias)

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return `g Wᵀ`: (tokens, outputs) -> (tokens, inputs)."""
        if self._backwards is None:
            with self._read() as weight:
                self._backwards = self._laid_out(weight)
        return _onednn(gradient, self._backwards, None)

    def _laid_out(self, weight: torch.Tensor) -> torch.Tensor:
        pack = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001 - what torch.compile calls
        found: torch.Tensor = pack(weight.contiguous(), self._tokens)
        return found


class Int8:
    """The product of a weight that is held as int8 codes with a scale for each output.

    The codes are whole numbers up to 127, which bfloat16 holds exactly, and the scale is applied to
    the outputs: nothing is rounded that stock bitsandbytes would not round. Forwards a weight is made
    float for one product at a time.

    Args:
        codes: (outputs, inputs), int8.
        scale: what a code is worth, (outputs,), float32.
        way_back: the product of the codes as floats, (inputs, outputs), where memory allows to keep
            them: on the way back they lie across. None makes them float as forwards.
    """

    def __init__(
        self, codes: torch.Tensor, scale: torch.Tensor, way_back: Product | None = None
    ) -> None:
        self._codes = codes
        self._scale = scale
        self._way_back = way_back

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return `x W + b`: (tokens, inputs) -> (tokens, outputs)."""
        found = self._once(x.dtype).forward(x, None).mul_(self._scale.to(x.dtype))
        return found if bias is None else found.add_(bias)

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return `g Wᵀ`: (tokens, outputs) -> (tokens, inputs)."""
        scaled = gradient * self._scale.to(gradient.dtype)
        return (self._way_back or self._once(gradient.dtype)).backward(scaled)

    def _once(self, dtype: torch.dtype) -> Product:
        return Plain(self._codes.to(dtype).t())


def gradient_of_weight(
    x: torch.Tensor,
    gradient: torch.Tensor,
    dtype: torch.dtype,
    *,
    into: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `xᵀ g`: (tokens, inputs) and (tokens, outputs) -> (inputs, outputs).

    Args:
        x: what the weight was multiplied with.
        gradient: of the product.
        dtype: of the outcome.
        into: memory for it, (inputs, outputs); it is returned then.
    """
    if onednn_gains(x, gradient.t()):
        found = _onednn(x.t(), gradient.t(), None)
    elif into is not None and x.dtype == dtype:
        return torch.mm(x.t(), gradient, out=into)
    else:
        found = x.t() @ gradient
    return found.to(dtype) if into is None else into.copy_(found)


def onednn_gains(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Say whether oneDNN is faster at a product than what torch chooses.

    On a CPU in float32 torch asks MKL, which reaches half of oneDNN's speed on processors that are not
    Intel's. On an Intel it is up to 1.7 times as fast where oneDNN has to turn the weight first.
    Everywhere else torch's choice is the fast one.

    Args:
        x: what is multiplied.
        weight: by what, (outputs, inputs): oneDNN reads it as it lies where its rows are contiguous.
    """
    may = x.device.type == "cpu" and x.dtype == torch.float32 and has_onednn()
    return may and (weight.is_contiguous() or not mkl_is_fast())


def _onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - as above
        x, weight, bias, "none", [], ""
    )
    return found
