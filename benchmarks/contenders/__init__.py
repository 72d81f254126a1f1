"""Who is compared: the tutorial, the hand-tuned rival, and peftune, with their variants."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.contenders.setup import Contender

_FLOAT = ("full", "lora")
_TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "T": ("tutorial:Tutorial", {}),
    "H": ("hand_tuned:HandTuned", {"title": "H: hand-tuned"}),
    "H-no-dropout": (
        "hand_tuned:HandTuned",
        {"title": "H, no trunk dropout", "trunk_dropout": False},
    ),
    "B": ("int8:StockInt8", {}),
    "B+": ("hand_tuned:HandTuned", {"title": "B+: hand-tuned", "strategies": ("lora-8bit",)}),
    "P": ("peftune_own:Peftune", {"title": "P: peftune"}),
    "P-fp32": (
        "peftune_own:Peftune",
        {"title": "P, `bf16: false`", "bf16": False, "strategies": ("lora", "lora-8bit")},
    ),
    "P-no-dropout": (
        "peftune_own:Peftune",
        {"title": "P, no trunk dropout", "trunk_dropout": False, "strategies": _FLOAT},
    ),
}
CONTENDERS = tuple(_TABLE)
CORE = ("T", "H", "B", "B+", "P")
"""Contenders whose ratios are the headline; the others are measured in fewer rounds."""


def contender(name: str) -> Contender:
    """Make a contender; what others need is not imported, since it would count as its memory."""
    place, options = _TABLE[name]
    module, _, kind = place.partition(":")
    made: Contender = getattr(import_module(f"{__name__}.{module}"), kind)(**options)
    return made
