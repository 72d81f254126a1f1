"""Headers of tensor files that lie, overlap, or ask for too much."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hostile.case import Damage, Draft
from hostile.raw_safetensors import (
    LENGTH_BYTES,
    header_of,
    joined,
    with_bytes,
    with_header,
    with_header_text,
)

Entry = dict[str, Any]


def _in_order(header: dict[str, Any]) -> list[Entry]:
    """List the tensors by their place in the data."""
    entries = [one for name, one in header.items() if name != "__metadata__"]
    return sorted(entries, key=lambda one: one["data_offsets"][0])


def _second(change: Callable[[Entry], object]) -> Damage:
    return with_header(lambda header: change(_in_order(header)[1]))


def _offsets(*values: object) -> Damage:
    return _second(lambda entry: entry.update(data_offsets=list(values)))


def _moved(start: int, end: int) -> Damage:
    def change(entry: Entry) -> None:
        first, last = entry["data_offsets"]
        entry["data_offsets"] = [first + start, last + end]

    return _second(change)


def _twins(header: dict[str, Any]) -> tuple[Entry, Entry]:
    """Return two tensors of one shape."""
    entries = _in_order(header)
    return next(
        (one, other)
        for place, one in enumerate(entries)
        for other in entries[place + 1 :]
        if one["shape"] == other["shape"]
    )


def _aliased(header: dict[str, Any]) -> None:
    """Let two tensors share their bytes."""
    one, other = _twins(header)
    other["data_offsets"] = one["data_offsets"]


def _exchanged(header: dict[str, Any]) -> None:
    """Let two tensors each name the other's bytes."""
    one, other = _twins(header)
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]


def _with_hole(draft: Draft) -> None:
    header, data = header_of(draft.read(draft.weights))
    for one in _in_order(header)[1:]:
        one["data_offsets"] = [place + 64 for place in one["data_offsets"]]
    first_end = _in_order(header)[0]["data_offsets"][1]
    holed = data[:first_end] + b"PK\x03\x04".ljust(64, b"\0") + data[first_end:]
    draft.forge(draft.weights, joined(json.dumps(header).encode(), holed))


def _metadata(values: object) -> Damage:
    return with_header(lambda header: header.update(__metadata__=values))


def _length(value: int) -> Damage:
    return with_bytes(
        lambda content: value.to_bytes(LENGTH_BYTES, "little") + content[LENGTH_BYTES:]
    )


def _cut(share: float) -> Damage:
    return with_bytes(lambda content: content[: int(len(content) * share)])


def _doubled_key(text: bytes) -> bytes:
    """State the first tensor twice, in the same words."""
    values = json.loads(text)
    name = next(name for name in values if name != "__metadata__")
    again = json.dumps({name: values[name]})[1:-1].encode()
    return b"{" + again + b"," + text[1:]


def _doubled_otherwise(text: bytes) -> bytes:
    """State the first tensor twice, the first time with another place."""
    values = json.loads(text)
    name = next(name for name in values if name != "__metadata__")
    again = json.dumps({name: {**values[name], "data_offsets": [0, 4]}})[1:-1].encode()
    return b"{" + again + b"," + text[1:]


_DEPTH = 100_000

HEADER_DAMAGES: dict[str, Damage] = {
    # Where the tensors lie
    "a tensor that overlaps the one before": _moved(-4, -4),
    "two tensors that share their bytes": with_header(_aliased),
    "two tensors that exchange their places": with_header(_exchanged),
    "a hole between tensors": _with_hole,
    "a tensor that begins late": _moved(4, 0),
    "a tensor that ends early": _moved(0, -4),
    "a tensor beyond the end": _offsets(10**9, 10**9 + 512),
    "a tensor at the edge of 64 bits": _offsets(2**63 - 512, 2**63),
    "a tensor beyond 64 bits": _offsets(2**64, 2**64 + 512),
    "a negative place": _offsets(-512, 0),
    "a reversed place": _offsets(512, 0),
    "a place in fractions": _offsets(0.5, 512.5),
    "a place in words": _offsets("0", "512"),
    "a place that is true": _offsets(False, True),
    "a place of three numbers": _offsets(0, 512, 1024),
    "a place of nothing": _second(lambda entry: entry.pop("data_offsets")),
    # What the tensors are
    "a shape that overflows": _second(lambda entry: entry.update(shape=[2**62, 4])),
    "a shape of zero times all": _second(lambda entry: entry.update(shape=[0, 2**62])),
    "a negative shape": _second(lambda entry: entry.update(shape=[-4, -32])),
    "a shape in fractions": _second(lambda entry: entry.update(shape=[4.0, 32.0])),
    "a shape in words": _second(lambda entry: entry.update(shape="4x32")),
    "no shape": _second(lambda entry: entry.pop("shape")),
    "no type": _second(lambda entry: entry.pop("dtype")),
    "a type that is a number": _second(lambda entry: entry.update(dtype=7)),
    "an unknown field of a tensor": _second(lambda entry: entry.update(loader="os.system")),
    "a tensor that is a list": with_header(lambda header: header.update(spare=[1, 2])),
    # Metadata
    "a megabyte of metadata": _metadata({"format": "pt", "note": "x" * 1_000_000}),
    "ten megabytes of metadata": _metadata({"format": "pt", "note": "x" * 10_000_000}),
    "metadata of another format": _metadata({"format": "pickle"}),
    "metadata with a further entry": _metadata({"format": "pt", "loader": "os.system"}),
    "metadata that is a list": _metadata(["pt"]),
    "metadata with numbers": _metadata({"format": 1}),
    # The header's text
    "a tensor stated twice": with_header_text(_doubled_key),
    "a tensor stated twice and differently": with_header_text(_doubled_otherwise),
    "a header that begins with a space": with_header_text(lambda text: b" " * 8 + text),
    "a header that begins with a byte-order mark": with_header_text(lambda text: b"\xef\xbb\xbf" + text),
    "a megabyte of spaces behind the header": with_header_text(lambda text: text + b" " * 1_000_000),
    "a megabyte of lines within the header": with_header_text(lambda text: b"{" + b"\n" * 1_000_000 + text[1:]),
    "a tab within the header": with_header_text(lambda text: b"{\t" + text[1:]),
    "a place of minus zero": with_header_text(lambda text: text.replace(b'"data_offsets":[0,', b'"data_offsets":[-0,', 1).replace(b'"data_offsets": [0,', b'"data_offsets": [-0,', 1)),
    "a header with something behind it": with_header_text(lambda text: text + b"{}"),
    "a header that is a list": with_header_text(lambda text: b"[" + text + b"]"),
    "a header that is not JSON": with_header_text(lambda text: text[:-1]),
    "a header that is not UTF-8": with_header_text(lambda text: text.replace(b"lora", b"\xff\xfera", 1)),
    "a header of deep brackets": with_header_text(lambda _: b"[" * _DEPTH + b"]" * _DEPTH),
    "a header with deep brackets inside": with_header_text(
        lambda text: text[:-1] + b',"spare":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}"
    ),
    "a header with a NaN": with_header_text(lambda text: text[:-1] + b',"spare":NaN}'),
    # The header's length
    **{
        f"a header length of {what}": _length(value)
        for what, value in {
            "zero": 0,
            "one": 1,
            "a hundred gigabytes": 10**11,
            "2^63": 2**63,
            "2^64 - 1": 2**64 - 1,
        }.items()
    },
    # The whole file
    **{f"cut to {share:.0%}": _cut(share) for share in (0.02, 0.1, 0.25, 0.5, 0.75, 0.99)},
    "cut by one byte": with_bytes(lambda content: content[:-1]),
    "cut in its length": with_bytes(lambda content: content[:7]),
    "an empty tensor file": with_bytes(lambda _: b""),
    "one byte too many": with_bytes(lambda content: content + b"\0"),
    "a zip archive behind the tensors": with_bytes(lambda content: content + b"PK\x05\x06" + bytes(18)),
    "the file twice": with_bytes(lambda content: content * 2),
    "a megabyte of zeros behind the tensors": with_bytes(lambda content: content + bytes(1_000_000)),
}  # fmt: skip
