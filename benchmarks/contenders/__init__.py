"""Who is compared: the tutorial, the hand-tuned rival, and peftune, with their variants."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.contenders.setup import Contender

_FLOAT, _INT8 = ("full", "lora"), ("lora-8bit",)
_TABLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "T": ("T: tutorial", "tutorial:Tutorial", {}),
    "H": ("H: hand-tuned", "hand_tuned:HandTuned", {"strategies": _FLOAT}),
    "H-no-dropout": (
        "H, no backbone dropout",
        "hand_tuned:HandTuned",
        {"strategies": _FLOAT, "trunk_dropout": False},
    ),
    "B": ("B: peft + bitsandbytes", "int8:StockInt8", {}),
    "B+": ("B+: hand-tuned", "hand_tuned:HandTuned", {"strategies": _INT8}),
    "P": ("P: peftune", "peftune_own:Peftune", {"strategies": (*_FLOAT, *_INT8)}),
    "P-fp32": (
        "P, `bf16: false`",
        "peftune_own:Peftune",
        {"strategies": (*_FLOAT, *_INT8), "bf16": False},
    ),
    "P-bf16": (
        "P, `bf16: true`",
        "peftune_own:Peftune",
        {"strategies": (*_FLOAT, *_INT8), "bf16": True},
    ),
    "P-no-dropout": (
        "P, no backbone dropout",
        "peftune_own:Peftune",
        {"strategies": _FLOAT, "trunk_dropout": False},
    ),
}
CONTENDERS = tuple(_TABLE)
TITLES = {name: title for name, (title, _, _) in _TABLE.items()}
"""What the table calls each of them."""
ACCURACY_ALONE = ("P-bf16",)
"""On the small base of the accuracies bfloat16 is not a default; where speed is measured it may be."""

RIVALS = {"full": "H", "lora": "H", "lora-8bit": "B+"}
"""Whom peftune has to agree with in each strategy, and whose precision is tried before the rounds."""


def contender(name: str) -> Contender:
    """Make a contender; what others need is not imported, since it would count as its memory."""
    _, place, options = _TABLE[name]
    module, _, kind = place.partition(":")
    made: Contender = getattr(import_module(f"{__name__}.{module}"), kind)(**options)
    return made
