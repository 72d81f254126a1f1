"""Strategies that a manifest may not name, and fields that they do not have or allow."""

from __future__ import annotations

from typing import Any

from hostile.case import Case, Damage, cases, edits, inside
from hostile.payloads import EVIL_MODULE

BOMB = "(a+)+$"
"""A regular expression that takes exponential time on a long row of the letter a."""

_NAMES = (
    "lroa", "LORA", "lora ", "lora\n", "", "os.system", "peftune.strategies.lora:LoRA",
    f"{EVIL_MODULE}:Strategy", "../../evil", "/etc/passwd", "__main__", "\x1b[2Jlora",
    "l" * 100_000,
)  # fmt: skip
_FIELDS: dict[str, tuple[Any, ...]] = {
    "r": (10**9, 20_000_000, 1025, 8, 2, 0, -1, True, "4", 4.5, None, [4], 10**400),
    "lora_alpha": (1e30, 4097.0, 32.0, 8.0, 0.0, -16.0, "16", True, None, float("inf")),
    "lora_dropout": (1.0, 2.0, -0.5, "0.05", None, float("inf")),
    "use_rslora": (True, 1, "true", None),
    "use_dora": (True, 1, "true"),
    "target_modules": (
        BOMB, ".*", "c_attn", [BOMB], [".*"], ["c_attn|c_proj"], ["c_attn"], ["c_attn", "wte"],
        ["score"], ["lm_head"], [], [""], ["nothing"], ["__class__"], None, {"c_attn": 1},
        ["a" * 100_000], [f"m{index}" for index in range(20_000)],
    ),
    "layers_to_transform": ([0], [2], [-1], [10**12], "0", list(range(100_000)), []),
}  # fmt: skip
_UNKNOWN: dict[str, Any] = {
    "init_lora_weights": "pissa",
    "bias": "all",
    "modules_to_save": ["wte"],
    "auto_mapping": {"parent_library": EVIL_MODULE},
    "rank_pattern": {BOMB: 64},
    "exclude_modules": BOMB,
    "load_in_8bit": True,
    "__class__": "Full",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:30]}… of {len(text)} characters"


def _fields() -> dict[str, Damage]:
    return {
        f"{field} {_shown(value)}": inside("strategy", **{field: value})
        for field, values in {**_FIELDS, **{k: (v,) for k, v in _UNKNOWN.items()}}.items()
        for value in values
    }


STRATEGY_CASES: tuple[Case, ...] = (
    *cases("lora", {f"strategy {_shown(name)}": inside("strategy", name=name) for name in _NAMES}),
    *cases("lora", _fields()),
    *cases(
        "lora",
        {
            "strategy head-only": edits(strategy={"name": "head-only"}),
            "strategy full": edits(strategy={"name": "full", "freeze_layers": 0}),
            "strategy full with frozen layers": edits(
                strategy={"name": "full", "freeze_layers": 1}
            ),
            "strategy lora-8bit": inside("strategy", name="lora-8bit", llm_int8_threshold=6.0),
            "a strategy without a name": edits(strategy={"r": 4}),
            "a strategy without its fields": edits(strategy={"name": "lora"}),
            "a strategy that is a list": edits(strategy=["lora"]),
            "a strategy that is a word": edits(strategy="lora"),
            "a strategy whose name is a list": edits(strategy={"name": ["lora"]}),
            "a strategy whose name is null": edits(strategy={"name": None}),
        },
    ),
    *cases(
        "lora-8bit",
        {
            "strategy lora": lambda draft: draft.edit(
                strategy={
                    **{
                        key: value
                        for key, value in draft.manifest()["strategy"].items()
                        if key != "llm_int8_threshold"
                    },
                    "name": "lora",
                }
            ),
            "llm_int8_threshold -1.0": inside("strategy", llm_int8_threshold=-1.0),
            "llm_int8_threshold 'all'": inside("strategy", llm_int8_threshold="all"),
            "llm_int8_threshold inf": inside("strategy", llm_int8_threshold=float("inf")),
            "lora_alpha 32.0": inside("strategy", lora_alpha=32.0),
            "use_rslora True": inside("strategy", use_rslora=True),
        },
    ),
    *cases(
        "head-only",
        {
            "strategy lora": edits(strategy={"name": "lora", "r": 4}),
            "strategy full": edits(strategy={"name": "full", "freeze_layers": 0}),
            "an unknown field": edits(strategy={"name": "head-only", "r": 4}),
        },
    ),
    *cases(
        "full",
        {
            "strategy lora": edits(strategy={"name": "lora", "r": 4}),
            "strategy head-only": edits(strategy={"name": "head-only"}),
            "freeze_layers 1": inside("strategy", freeze_layers=1),
            "freeze_layers 10**12": inside("strategy", freeze_layers=10**12),
            "freeze_layers -1": inside("strategy", freeze_layers=-1),
            "freeze_layers True": inside("strategy", freeze_layers=True),
        },
    ),
)
