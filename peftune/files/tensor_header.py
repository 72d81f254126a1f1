"""The header of a safetensors file, compared with what must stand in it before a tensor is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from peftune.errors import ArtifactError
from peftune.files.strict_json import parse_json

MAX_HEADER_BYTES = 1 << 20
BYTES_OF: dict[str, int] = {"F32": 4, "F16": 2, "BF16": 2}
"""Element types that a file may hold, by safetensors' own names, with their bytes."""

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor must be.

    Args:
        dtype: safetensors' name of the element type, such as `F32`.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * BYTES_OF[self.dtype]


def read_header(content: bytes, *, source: str) -> dict[str, TensorSpec]:
    """Read which tensors a safetensors file holds.

    The data must be tiled by the tensors in some order: no holes, no overlaps, nothing behind.

    Args:
        content: the whole file.
        source: what messages call it.

    Returns:
        Each tensor by name.

    Raises:
        ArtifactError: the header is damaged, too long, or says what it must not.
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if len(content) < _LENGTH_BYTES or start > len(content):
        message = f"'{source}' is no readable safetensors file: it ends within its header."
        raise ArtifactError(message)
    if length > MAX_HEADER_BYTES:
        message = f"'{source}' has a header of {length} bytes, and may have {MAX_HEADER_BYTES}; it is not read."
        raise ArtifactError(message)
    raw = content[_LENGTH_BYTES:start]
    if not raw.startswith(b"{"):
        message = f"'{source}' is no readable safetensors file: its header begins with no brace."
        raise ArtifactError(message)
    _refuse_padding(raw, source)
    values = parse_json(raw, source=f"{source} (header)")
    metadata = values.pop(_METADATA, {"format": "pt"})
    if metadata != {"format": "pt"}:
        message = f"'{source}' holds metadata beside its tensors, which is not read. Save it again with safetensors.torch."
        raise ArtifactError(message)
    places = {name: _place(name, value, source) for name, value in values.items()}
    _refuse_gaps(places.values(), len(content) - start, source)
    return {name: spec for name, (spec, _, _) in places.items()}


def check_header(
    found: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec], *, source: str
) -> None:
    """Refuse a file whose tensors are not exactly those expected.

    Args:
        found: from `read_header`.
        expected: every tensor that must be there.
        source: what messages call the file.

    Raises:
        ArtifactError: a tensor is missing, unexpected, or of another type or shape.
    """
    for names, fault in (
        (sorted(set(expected) - set(found)), "lacks"),
        (sorted(set(found) - set(expected)), "holds the unexpected"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            message = f"'{source}' {fault} tensor '{names[0][:200]}'{more}; it does not fit its strategy and base."
            raise ArtifactError(message)
    for name, spec in expected.items():
        if found[name] != spec:
            message = f"'{source}': tensor '{name}' is {found[name].dtype} {list(found[name].shape)}; it must be {spec.dtype} {list(spec.shape)}."
            raise ArtifactError(message)


def _place(name: str, value: Any, source: str) -> tuple[TensorSpec, int, int]:  # noqa: ANN401 - any JSON
    """Read one entry of the header: what the tensor is, and where its data begins and ends."""
    if isinstance(value, dict) and set(value) == _FIELDS:
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if (
            isinstance(dtype, str)
            and dtype in BYTES_OF
            and _are_counts(shape)
            and _are_counts(offsets)
            and len(offsets) == 2  # noqa: PLR2004 - begin and end
        ):
            spec = TensorSpec(dtype, tuple(shape))
            begin, end = offsets
            if end - begin == spec.nbytes:
                return spec, begin, end
    message = f"'{source}': the header's entry of tensor '{name[:200]}' is not a type of {', '.join(BYTES_OF)}, a shape and the offsets that follow from them."
    raise ArtifactError(message)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _refuse_padding(header: bytes, source: str) -> None:
    """Refuse spaces beyond those that let the data begin at a whole eight bytes."""
    if len(header) - len(header.rstrip(b" ")) >= _LENGTH_BYTES:
        message = (
            f"'{source}' is no sound safetensors file: its header is padded beyond eight bytes."
        )
        raise ArtifactError(message)


def _refuse_gaps(places: Iterable[tuple[TensorSpec, int, int]], size: int, source: str) -> None:
    position = 0
    for begin, end in sorted((begin, end) for _, begin, end in places):
        if begin != position:
            break
        position = end
    else:
        if position == size:
            return
    message = f"'{source}' is no sound safetensors file: its tensors do not tile its data."
    raise ArtifactError(message)
