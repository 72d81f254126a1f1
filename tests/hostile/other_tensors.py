"""Tensor files of the artifacts that are not LoRA's, and files that rotted on their way."""

from __future__ import annotations

import numpy as np

from hostile.case import Artifact, Case, Damage, Draft, cases
from hostile.raw_safetensors import (
    poisoned,
    stated_as,
    with_extra,
    with_tensor,
    with_tensors,
    without,
)
from hostile.tensors import LORA_TENSORS

_PREFIX = "base_model.model."


def _bit_rot() -> dict[str, Damage]:
    def flipped(place: float) -> Damage:
        def damage(draft: Draft) -> None:
            content = bytearray(draft.read(draft.weights))
            content[int(place * (len(content) - 1))] ^= 16
            draft.write(draft.weights, bytes(content))

        return damage

    return {
        f"a bit flipped at {place:.0%} of the tensor file": flipped(place)
        for place in (0.0, 0.002, 0.05, 0.5, 0.9, 1.0)
    }


_SOME: tuple[tuple[Artifact, str, tuple[int, ...]], ...] = (
    ("head-only", "transformer.ln_f.weight", (32,)),
    ("head-only", "transformer.wte.weight", (257, 32)),
    ("lora-8bit", f"{_PREFIX}transformer.ln_f.weight", (32,)),
    ("lora-8bit", f"{_PREFIX}transformer.h.0.attn.c_attn.base_layer.SCB", (96,)),
    ("full", "transformer.h.2.ln_1.weight", (32,)),
    ("full", "lm_head.weight", (257, 32)),
    ("full", "transformer.h.0.attn.bias", (1, 1, 64, 64)),
    ("full", "spare", (2,)),
)
_ONE: dict[Artifact, str] = {
    "head-only": "score.weight",
    "lora-8bit": LORA_TENSORS[0],
    "full": "transformer.h.0.attn.c_attn.weight",
}


def _of_other_artifacts() -> tuple[Case, ...]:
    found: list[Case] = []
    for kind, name, shape in _SOME:
        found += cases(kind, {f"extra tensor {name}": with_extra(name, shape)})
    for kind, name in _ONE.items():
        found += cases(
            kind,
            {
                "NaN in a tensor": with_tensor(name, poisoned(np.nan)),
                "infinity in a tensor": with_tensor(name, poisoned(np.inf)),
                "a tensor missing": without(name),
                "a tensor transposed": with_tensor(name, lambda one: one.holding(one.floats().T)),
                "a tensor of int64": with_tensor(name, stated_as("I64", 8)),
                "a tensor of half precision": with_tensor(name, stated_as("F16", 2)),
                "a tensor doubled": with_tensor(name, lambda one: one.holding(one.floats() * 2)),
                "a tensor renamed": with_tensors(
                    lambda tensors, name=name: {  # type: ignore[misc]
                        "x" if old == name else old: one for old, one in tensors.items()
                    }
                ),
            },
        )
    return tuple(found)


OTHER_TENSOR_CASES: tuple[Case, ...] = (
    *cases("lora", _bit_rot(), unfitting=True),
    *cases("full", _bit_rot(), unfitting=True),
    *_of_other_artifacts(),
)
