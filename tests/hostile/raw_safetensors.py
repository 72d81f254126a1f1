"""Safetensors files taken apart and put together without any check."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hostile.case import Damage, Draft

LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One tensor as the file states it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def floats(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a copy of the values, (shape), float32."""
        values: np.ndarray[Any, np.dtype[np.float32]] = np.frombuffer(self.data, dtype="<f4")
        shaped: np.ndarray[Any, np.dtype[np.float32]] = values.reshape(self.shape).copy()
        return shaped

    def holding(self, values: np.ndarray[Any, Any]) -> RawTensor:
        """Return a float32 tensor of other values, in their shape."""
        return RawTensor("F32", values.shape, np.ascontiguousarray(values, dtype="<f4").tobytes())


Tensors = dict[str, RawTensor]


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a file into its header's values and its data."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    end = LENGTH_BYTES + length
    header: dict[str, Any] = json.loads(content[LENGTH_BYTES:end])
    return header, content[end:]


def unpacked(content: bytes) -> Tensors:
    """Return the tensors of a good file."""
    header, data = header_of(content)
    header.pop("__metadata__", None)
    return {
        name: RawTensor(one["dtype"], tuple(one["shape"]), data[slice(*one["data_offsets"])])
        for name, one in header.items()
    }


def packed(tensors: Mapping[str, RawTensor]) -> bytes:
    """Write tensors one after the other, as the library does."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, one in tensors.items():
        offsets = [place, place + len(one.data)]
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": offsets}
        place += len(one.data)
    return joined(json.dumps(header).encode(), b"".join(one.data for one in tensors.values()))


def joined(header: bytes, data: bytes, *, length: int | None = None) -> bytes:
    """Write a header, padded to eight bytes, and data; the length may lie."""
    padded = header + b" " * (-len(header) % LENGTH_BYTES)
    stated = len(padded) if length is None else length
    return stated.to_bytes(LENGTH_BYTES, "little") + padded + data


def with_tensors(change: Callable[[Tensors], Tensors]) -> Damage:
    """Write the artifact's tensors changed, and hash the file again."""

    def damage(draft: Draft) -> None:
        changed = change(unpacked(draft.read(draft.weights)))
        draft.forge(draft.weights, packed(changed))

    return damage


def with_tensor(name: str, change: Callable[[RawTensor], RawTensor]) -> Damage:
    """Write one tensor changed, and hash the file again."""
    return with_tensors(lambda tensors: {**tensors, name: change(tensors[name])})


def with_header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Edit the header in place around the same data, and hash the file again."""

    def damage(draft: Draft) -> None:
        header, data = header_of(draft.read(draft.weights))
        change(header)
        draft.forge(draft.weights, joined(json.dumps(header).encode(), data))

    return damage


def with_bytes(change: Callable[[bytes], bytes]) -> Damage:
    """Write the bytes of the tensor file changed, and hash the file again."""
    return lambda draft: draft.forge(draft.weights, change(draft.read(draft.weights)))


def with_header_text(change: Callable[[bytes], bytes]) -> Damage:
    """Change the header's text around the same data, and hash the file again."""

    def damage(draft: Draft) -> None:
        content = draft.read(draft.weights)
        header, data = header_of(content)
        text = json.dumps(header, separators=(",", ":")).encode()
        draft.forge(draft.weights, joined(change(text), data))

    return damage


def poisoned(value: float) -> Callable[[RawTensor], RawTensor]:
    """Put one value into the middle of a tensor."""

    def change(tensor: RawTensor) -> RawTensor:
        values = tensor.floats()
        values.reshape(-1)[values.size // 2] = value
        return tensor.holding(values)

    return change


def stated_as(dtype: str, item_bytes: float) -> Callable[[RawTensor], RawTensor]:
    """State another type, with as many bytes as it asks for."""

    def change(tensor: RawTensor) -> RawTensor:
        count = int(np.prod(tensor.shape))
        return replace(tensor, dtype=dtype, data=bytes(int(count * item_bytes)))

    return change


def with_extra(name: str, shape: tuple[int, ...]) -> Damage:
    """Add a tensor, and hash the file again."""
    values = np.full(shape, 7.0, dtype="<f4")
    return with_tensors(
        lambda tensors: {**tensors, name: RawTensor("F32", shape, values.tobytes())}
    )


def without(*names: str) -> Damage:
    """Leave tensors out, and hash the file again."""
    return with_tensors(
        lambda tensors: {name: one for name, one in tensors.items() if name not in names}
    )
