"""The header of a safetensors file, compared with what must stand in it before a tensor is made."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.errors import ArtifactError
from peftune.files.reading import open_plain, read_exactly
from peftune.files.strict_json import parse_json

MAX_HEADER_BYTES = 1 << 20
BYTES_OF: dict[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
"""Element types whose size is known, by safetensors' own names, with their bytes."""

ARTIFACT_TYPES = ("F32", "F16", "BF16")
"""Element types that an artifact may hold."""

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_OWN_METADATA = {"format": "pt"}
_LONGEST_METADATA = 1 << 16
_FIELDS = {"dtype", "shape", "data_offsets"}
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BARE = re.compile(rb'(?:[{}\[\]"0-9]|[,:] ?)* *\Z')
"""A header without what its strings hold: counts, brackets, and at most a space behind a mark. It ends in
spaces, which `_refuse_padding` counts."""


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
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self.size * BYTES_OF[self.dtype]


def read_header(content: bytes, *, source: str) -> dict[str, TensorSpec]:
    """Read which tensors a safetensors file of an artifact holds.

    The data must be tiled by the tensors in some order: no holes, no overlaps, nothing behind.

    Args:
        content: the whole file.
        source: what messages call it.

    Returns:
        Each tensor by name.

    Raises:
        ArtifactError: the header is damaged, too long, or says what it must not.
    """
    length = _stated_length(content[:_LENGTH_BYTES], len(content), source)
    raw = content[_LENGTH_BYTES : _LENGTH_BYTES + length]
    size = len(content) - _LENGTH_BYTES - length
    return _parsed(raw, size, types=ARTIFACT_TYPES, own_metadata=True, source=source)


def read_header_of(path: Path, *, source: str, follow: bool) -> dict[str, TensorSpec]:
    """Read which tensors a safetensors file of a base holds, and nothing of the tensors.

    As `read_header`; but other tools wrote it, so it may hold any element type and its own metadata.

    Args:
        path: where it lies.
        source: what messages call it.
        follow: follow a link, to a plain file.

    Returns:
        Each tensor by name.

    Raises:
        ArtifactError: it is not a plain file, or its header is damaged or too long.
    """
    with open_plain(path, shown=source, follow=follow) as (handle, total):
        head = read_exactly(handle, min(_LENGTH_BYTES, total), shown=source)
        length = _stated_length(head, total, source)
        raw = read_exactly(handle, length, shown=source)
    size = total - _LENGTH_BYTES - length
    return _parsed(raw, size, types=BYTES_OF, own_metadata=False, source=source)


def _stated_length(head: bytes, total: int, source: str) -> int:
    """Return how many bytes a header has, if the file has as many."""
    length = int.from_bytes(head, "little")
    if len(head) < _LENGTH_BYTES or _LENGTH_BYTES + length > total:
        message = f"'{source}' is not a readable safetensors file: it ends within its header."
        raise ArtifactError(message)
    if length > MAX_HEADER_BYTES:
        message = f"'{source}' has a header of {length} bytes, and may have {MAX_HEADER_BYTES}; it is not read."
        raise ArtifactError(message)
    return length


def _parsed(
    raw: bytes, size: int, *, types: Collection[str], own_metadata: bool, source: str
) -> dict[str, TensorSpec]:
    """Parse a header of tensors whose data has `size` bytes."""
    if not raw.startswith(b"{"):
        message = (
            f"'{source}' is not a readable safetensors file: its header begins with no brace."
        )
        raise ArtifactError(message)
    values = parse_json(raw, source=f"{source} (header)")
    _refuse_padding(raw, source)
    metadata = values.pop(_METADATA, _OWN_METADATA)
    if not (metadata == _OWN_METADATA if own_metadata else _is_metadata(metadata)):
        message = f"'{source}' holds metadata beside its tensors, which is not read. Save it again with safetensors.torch."
        raise ArtifactError(message)
    places = {name: _place(name, value, types, source) for name, value in values.items()}
    _refuse_gaps(places.values(), size, source)
    _refuse_other_text(raw, source)
    return {name: spec for name, (spec, _, _) in places.items()}


def _is_metadata(values: object) -> bool:
    """Say whether metadata is what the format has it: a few texts by name."""
    if not isinstance(values, dict) or not all(isinstance(one, str) for one in values.values()):
        return False
    return sum(len(key) + len(value) for key, value in values.items()) <= _LONGEST_METADATA


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


def _place(
    name: str,
    value: Any,  # noqa: ANN401 - any JSON
    types: Collection[str],
    source: str,
) -> tuple[TensorSpec, int, int]:
    """Read one entry of the header: what the tensor is, and where its data begins and ends."""
    if isinstance(value, dict) and set(value) == _FIELDS:
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if (
            isinstance(dtype, str)
            and dtype in types
            and _are_counts(shape)
            and _are_counts(offsets)
            and len(offsets) == 2  # noqa: PLR2004 - begin and end
        ):
            spec = TensorSpec(dtype, tuple(shape))
            begin, end = offsets
            if end - begin == spec.nbytes:
                return spec, begin, end
    message = f"'{source}': the header's entry of tensor '{name[:200]}' is not a type of {', '.join(types)}, a shape and the offsets that follow from them."
    raise ArtifactError(message)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _refuse_padding(header: bytes, source: str) -> None:
    """Refuse spaces beyond those that let the data begin at a whole eight bytes."""
    if len(header) - len(header.rstrip(b" ")) >= _LENGTH_BYTES:
        message = (
            f"'{source}' is not a sound safetensors file: its header is padded beyond eight bytes."
        )
        raise ArtifactError(message)


def _refuse_other_text(header: bytes, source: str) -> None:
    """Refuse what JSON allows and no tool writes: blank space that pads, and numbers such as `1e0`.

    Readers differ in what they make of such numbers, and a header can be padded to any length.

    Args:
        header: valid JSON.
        source: what messages call the file.
    """
    if not _BARE.match(_STRING.sub(b'""', header)):
        message = f"'{source}' is not a sound safetensors file: its header holds blank space or numbers that safetensors does not write. Save it again with safetensors."
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
    message = f"'{source}' is not a sound safetensors file: its tensors do not tile its data."
    raise ArtifactError(message)
