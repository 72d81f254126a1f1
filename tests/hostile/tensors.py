"""Tensor files that say something else than what the strategy and the base ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hostile.case import Case, Damage, cases
from hostile.headers import HEADER_DAMAGES
from hostile.raw_safetensors import (
    RawTensor,
    Tensors,
    poisoned,
    stated_as,
    with_extra,
    with_tensor,
    with_tensors,
    without,
)

_PREFIX = "base_model.model."
_MODULES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
HEAD = f"{_PREFIX}score.weight"
LORA_TENSORS = (
    *(
        f"{_PREFIX}transformer.h.{block}.{module}.lora_{side}.weight"
        for block in (0, 1)
        for module in _MODULES
        for side in "AB"
    ),
    HEAD,
)
A, B = LORA_TENSORS[0], LORA_TENSORS[1]
OTHER_A = LORA_TENSORS[8]

_OF_THE_BASE = {
    "transformer.ln_f.weight": (32,),
    "transformer.ln_f.bias": (32,),
    "transformer.wte.weight": (257, 32),
    "transformer.wpe.weight": (64, 32),
    "transformer.h.0.ln_1.weight": (32,),
    "transformer.h.0.attn.c_attn.weight": (32, 96),
    "transformer.h.0.attn.c_attn.base_layer.weight": (32, 96),
    "transformer.h.1.mlp.c_fc.bias": (128,),
    "transformer.h.2.attn.c_attn.lora_A.weight": (4, 32),
    "lm_head.weight": (257, 32),
    "score.original_module.weight": (3, 32),
    "score.modules_to_save.default.weight": (3, 32),
}


def _renamed(change: Callable[[str], str]) -> Damage:
    return with_tensors(lambda tensors: {change(name): one for name, one in tensors.items()})


def _swapped(one: str, other: str) -> Damage:
    return with_tensors(lambda tensors: {**tensors, one: tensors[other], other: tensors[one]})


def _all(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], part: str) -> Damage:
    """Change the values of every tensor that has `part` in its name."""
    return with_tensors(
        lambda tensors: {
            name: one.holding(change(one.floats())) if part in name else one
            for name, one in tensors.items()
        }
    )


def _reshaped(*shape: int) -> Callable[[RawTensor], RawTensor]:
    return lambda tensor: replace(tensor, shape=shape)


def _of_shape(*shape: int) -> Callable[[RawTensor], RawTensor]:
    return lambda tensor: tensor.holding(np.full(shape, 0.5))


def _zero_sized(count: int) -> Damage:
    def change(tensors: Tensors) -> Tensors:
        return {**tensors, **{f"t{index}": RawTensor("F32", (0,), b"") for index in range(count)}}

    return with_tensors(change)


def _named(name: str) -> Damage:
    return with_extra(name, (2,))


_TYPES = {
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "U64": 8, "BOOL": 1, "F64": 8, "F16": 2,
    "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F4": 0.5, "C64": 8, "F128": 16, "": 4,
    "f32": 4,
}  # fmt: skip

NAME_DAMAGES: dict[str, Damage] = {
    **{
        f"extra tensor {name}": with_extra(_PREFIX + name, shape)
        for name, shape in _OF_THE_BASE.items()
    },
    "extra tensor without the prefix": with_extra("transformer.ln_f.weight", (32,)),
    "no tensors at all": with_tensors(lambda _: {}),
    "no LoRA tensors": without(*LORA_TENSORS[:-1]),
    "no head": without(HEAD),
    "one lora_A missing": without(A),
    "one lora_B missing": without(B),
    "a block missing": without(*LORA_TENSORS[8:16]),
    "names without their prefix": _renamed(lambda name: name.removeprefix(_PREFIX)),
    "names with the adapter's name": _renamed(
        lambda name: name.replace("lora_A", "lora_A.default")
    ),
    "names in capitals": _renamed(str.upper),
    "one name with a space": _renamed(lambda name: f"{name} " if name == A else name),
    "one name in another alphabet": _renamed(
        lambda name: name.replace("lora_A", "lora_\N{CYRILLIC CAPITAL LETTER A}")
    ),
    **{
        f"extra tensor with a name that is {what}": _named(name)
        for what, name in {
            "a path upwards": "../../../etc/passwd",
            "an absolute path": "/etc/passwd",
            "empty": "",
            "a NUL": "\0",
            "two lines": "first\nsecond",
            "a terminal escape": "\x1b[2J\x1b]0;owned\x07",
            "a megabyte long": "n" * 1_000_000,
            "an attribute of Python": "__class__.__init__",
            "a regular expression": "(a+)+$",
            "a line separator": "first\u2028second",
        }.items()
    },
    "a hundred thousand empty tensors": _zero_sized(100_000),
}

_VALUES: dict[str, Damage] = {
    **{f"NaN in {name.removeprefix(_PREFIX)}": with_tensor(name, poisoned(np.nan)) for name in LORA_TENSORS},
    **{f"infinity in {name.removeprefix(_PREFIX)}": with_tensor(name, poisoned(np.inf)) for name in (A, B, HEAD)},
    "minus infinity in the head": with_tensor(HEAD, poisoned(-np.inf)),
    "a huge value": with_tensor(B, poisoned(3e38)),
    "two equal-shaped tensors swapped": _swapped(A, OTHER_A),
    "rows of the head permuted": _all(lambda values: values[::-1], "score"),
    "head set to zero": _all(np.zeros_like, "score"),
    "LoRA set to zero": _all(np.zeros_like, "lora_B"),
    "LoRA twice as strong": _all(lambda values: values * 2, "lora_B"),
    "LoRA turned round": _all(np.negative, "lora_B"),
    "all values reversed": _all(lambda values: values.ravel()[::-1].reshape(values.shape), "."),
    "another's values": _all(lambda values: np.full_like(values, 0.03125), "."),
}  # fmt: skip

SHAPE_DAMAGES: dict[str, Damage] = {
    "a transposed tensor": with_tensor(A, lambda one: one.holding(one.floats().T)),
    "a tensor stated transposed": with_tensor(A, _reshaped(32, 4)),
    "a flattened tensor": with_tensor(A, _reshaped(128)),
    "a tensor with a dimension more": with_tensor(A, _reshaped(1, 4, 32)),
    "a rank more in one tensor": with_tensor(A, _of_shape(5, 32)),
    "a rank of zero": with_tensor(A, _of_shape(0, 32)),
    "a scalar": with_tensor(A, _of_shape()),
    "a label more in the head": with_tensor(HEAD, _of_shape(4, 32)),
    "a label fewer in the head": with_tensor(HEAD, _of_shape(2, 32)),
    "a wider head": with_tensor(HEAD, _of_shape(3, 64)),
    "every tensor of rank 8": with_tensors(
        lambda tensors: {
            name: one.holding(np.repeat(one.floats(), 2, axis=0 if "lora_A" in name else 1))
            if "lora" in name
            else one
            for name, one in tensors.items()
        }
    ),
    "a rank of a hundred thousand dimensions": with_tensor(A, _reshaped(*[1] * 100_000)),
    **{f"type {dtype or 'without a name'}": with_tensor(A, stated_as(dtype, size)) for dtype, size in _TYPES.items()},
    "every tensor in half precision": with_tensors(
        lambda tensors: {
            name: RawTensor("F16", one.shape, one.floats().astype("<f2").tobytes())
            for name, one in tensors.items()
        }
    ),
    "every tensor in double precision": with_tensors(
        lambda tensors: {
            name: RawTensor("F64", one.shape, one.floats().astype("<f8").tobytes())
            for name, one in tensors.items()
        }
    ),
}  # fmt: skip

_OF_A_MODEL = (
    "a hundred thousand empty tensors",
    "every tensor in half precision",
    "rows of the head permuted",
)
_OF_OTHER_TOOLS = {"type F16", "type BF16", "every tensor in half precision"}
"""Other tools store adapters in half precision; the shapes alone bind such a file."""

PLAIN_DAMAGES: dict[str, Damage] = {
    **{name: damage for name, damage in _VALUES.items() if "NaN" in name or "infinity" in name},
    **{name: damage for name, damage in SHAPE_DAMAGES.items() if name not in _OF_OTHER_TOOLS},
}
"""What shows without a manifest: names, shapes, types and values that are not numbers."""

TENSOR_CASES: tuple[Case, ...] = (
    *cases("lora", {**NAME_DAMAGES, **_VALUES, **SHAPE_DAMAGES, **HEADER_DAMAGES}),
    *cases(
        "full", {name: {**NAME_DAMAGES, **_VALUES, **SHAPE_DAMAGES}[name] for name in _OF_A_MODEL}
    ),
)
