"""PEFT configurations that say something else than the manifest, or that are not a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hostile.case import CONFIG, Case, Damage, Draft, cases, forges, in_json
from hostile.payloads import EVIL_MODULE
from hostile.strategies import BOMB

CHANGED: dict[str, dict[str, Any]] = {
    "r of a billion": {"r": 10**9},
    "r of twenty million": {"r": 20_000_000},
    "r of 8": {"r": 8},
    "r of zero": {"r": 0},
    "r below zero": {"r": -4},
    "r that is true": {"r": True},
    "r in words": {"r": "4"},
    "r in fractions": {"r": 1.5},
    "no r": {"r": None},
    "alpha in words": {"lora_alpha": "16"},
    "alpha that is true": {"lora_alpha": True},
    "alpha of 1e30": {"lora_alpha": 1e30},
    "alpha below zero": {"lora_alpha": -16},
    "alpha of zero": {"lora_alpha": 0},
    "alpha that is NaN": {"lora_alpha": float("nan")},
    "alpha that is infinite": {"lora_alpha": float("inf")},
    "use_rslora in words": {"use_rslora": "false"},
    "use_dora": {"use_dora": True},
    "a regular expression as target_modules": {"target_modules": BOMB},
    "a regular expression in target_modules": {"target_modules": [BOMB]},
    "target_modules that are everything": {"target_modules": ".*"},
    "target_modules that are the embeddings": {"target_modules": ["wte"]},
    "target_modules that do not exist": {"target_modules": ["q_proj"]},
    "fewer target_modules": {"target_modules": ["c_attn"]},
    "a hundred thousand target_modules": {"target_modules": [f"m{i}" for i in range(100_000)]},
    "no target_modules": {"target_modules": None},
    "target_modules with a path": {"target_modules": ["../../c_attn"]},
    "a regular expression as exclude_modules": {"exclude_modules": BOMB},
    "exclude_modules": {"exclude_modules": ["c_proj"]},
    "a regular expression in rank_pattern": {"rank_pattern": {BOMB: 8}},
    "a regular expression in alpha_pattern": {"alpha_pattern": {BOMB: 8}},
    "a huge rank in rank_pattern": {"rank_pattern": {"c_attn": 10**9}},
    "a huge alpha in alpha_pattern": {"alpha_pattern": {"c_attn": 1e30}},
    **{
        f"init_lora_weights {name!r}": {"init_lora_weights": name}
        for name in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "eva", "lora_ga", "orthogonal", 7)
    },
    "bias all": {"bias": "all"},
    "bias lora_only": {"bias": "lora_only"},
    "lora_bias": {"lora_bias": True},
    "modules_to_save with the embeddings": {"modules_to_save": ["classifier", "score", "wte"]},
    "modules_to_save with everything": {"modules_to_save": ["transformer"]},
    "an auto_mapping": {
        "auto_mapping": {"base_model_class": "Model", "parent_library": EVIL_MODULE}
    },
    "a megatron_core": {
        "megatron_core": EVIL_MODULE,
        "megatron_config": {"tensor_model_parallel_size": 1},
    },
    "a corda_config": {"corda_config": {"cache_file": "/etc/passwd"}},
    "an eva_config": {"eva_config": {"rho": 1.0}},
    "a loftq_config": {"loftq_config": {"loftq_bits": 4}},
    "a layer_replication": {"layer_replication": [[0, 2], [0, 2]]},
    "layers_to_transform without end": {"layers_to_transform": list(range(100_000))},
    "a regular expression as layers_pattern": {"layers_to_transform": [0], "layers_pattern": BOMB},
    "target_parameters": {"target_parameters": ["mlp.c_fc.weight"]},
    "trainable_token_indices": {"trainable_token_indices": [0, 1]},
    "alora_invocation_tokens": {"alora_invocation_tokens": [1]},
    "a qalora": {"use_qalora": True},
    "runtime_config": {"runtime_config": {"ephemeral_gpu_offload": True}},
    **{
        f"peft_type {name!r}": {"peft_type": name}
        for name in (
            "XLORA", "SHADOW", "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "IA3",
            "ADALORA", "BOFT", "VERA", "", "lora", None, 3, "os.system", "\x1b[2J",
        )
    },
    "the type of a prompt with a foreign tokenizer": {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": 10**9,
        "prompt_tuning_init": "TEXT",
        "tokenizer_name_or_path": "evil/tokenizer",
        "tokenizer_kwargs": {"trust_remote_code": True},
    },
    "the type of a prompt with a pickle": {
        "peft_type": "MULTITASK_PROMPT_TUNING",
        "prompt_tuning_init_state_dict_path": "adapter_model.bin",
    },
    "the type of a mixture with further adapters": {
        "peft_type": "XLORA",
        "adapters": {"0": "evil/adapter"},
    },
    "the type of a shadow of a foreign model": {"peft_type": "SHADOW", "shadow_model": "evil/m"},
}  # fmt: skip
"""What no plain LoRA configuration says, with or without a manifest beside it."""

_BESIDE_A_MANIFEST: dict[str, dict[str, Any]] = {
    "twice the alpha": {"lora_alpha": 32.0},
    "another alpha": {"lora_alpha": 17.0},
    "use_rslora flipped": {"use_rslora": True},
    "another dropout": {"lora_dropout": 0.5},
    "layers_to_transform": {"layers_to_transform": [0]},
    "another task type": {"task_type": "CAUSAL_LM"},
    "an unknown task type": {"task_type": "EVIL"},
    "no modules_to_save": {"modules_to_save": None},
    "inference_mode off": {"inference_mode": False},
    "another base": {"base_model_name_or_path": "evil/model"},
    "a path as the base": {"base_model_name_or_path": "/etc"},
    "another revision of the base": {"revision": "evil"},
    "another version of peft": {"peft_version": "\x1b[2J"},
    "an unknown field": {"loader": "os.system"},
    "a terminal escape as a field": {"\x1b[2J": 1},
}
"""What a plain LoRA configuration may well say, but not this adapter's."""


def _raw(change: Callable[[bytes], bytes]) -> Damage:
    return lambda draft: draft.forge(CONFIG, change(draft.read(CONFIG)))


def _deep(draft: Draft) -> None:
    text = json.dumps(draft.values(CONFIG))
    brackets = "[" * 100_000 + "]" * 100_000
    draft.forge(CONFIG, f'{text[:-1]}, "note": {brackets}}}'.encode())


RAW: dict[str, Damage] = {
    "an empty configuration": forges(CONFIG, b""),
    "a configuration that is not JSON": _raw(lambda content: content[:-3]),
    "a configuration that is a list": _raw(lambda content: b"[" + content + b"]"),
    "a configuration that is null": forges(CONFIG, b"null"),
    "a configuration without anything": forges(CONFIG, b"{}"),
    "a configuration in UTF-16": _raw(lambda content: content.decode().encode("utf-16")),
    "a configuration that is not UTF-8": _raw(lambda content: content.replace(b"LORA", b"\xff\xfe")),
    "a configuration that is a pickle": forges(CONFIG, b"\x80\x04N."),
    "a configuration with something behind it": _raw(lambda content: content + b"{}"),
    "a configuration with deep brackets": _deep,
    "a configuration of ten megabytes": lambda draft: draft.edit_json(CONFIG, note="x" * 10_000_000),
    "r twice in the configuration": _raw(lambda content: content.replace(b"{", b'{"r": 1000000000,', 1)),
    "an r of four thousand digits": _raw(lambda content: content.replace(b'"r": 4', b'"r": ' + b"9" * 4000)),
    "an r of five thousand digits": _raw(lambda content: content.replace(b'"r": 4', b'"r": ' + b"9" * 5000)),
}  # fmt: skip


def edited(changes: dict[str, dict[str, Any]]) -> dict[str, Damage]:
    """Name damages of the configuration."""
    return {
        f"{what} in the configuration": in_json(CONFIG, **values)
        for what, values in changes.items()
    }


def _without_r(draft: Draft) -> None:
    values = draft.values(CONFIG)
    values.pop("r")
    draft.write_json(CONFIG, values)


CONFIG_CASES: tuple[Case, ...] = (
    *cases("lora", {**edited({**CHANGED, **_BESIDE_A_MANIFEST}), **RAW}),
    *cases(
        "lora",
        {
            "a configuration that lacks its r": _without_r,
            "a configuration with a byte-order mark": _raw(lambda content: b"\xef\xbb\xbf" + content),
        },
    ),
    *cases(
        "lora-8bit",
        edited(
            {
                name: {**CHANGED, **_BESIDE_A_MANIFEST}[name]
                for name in ("bias all", "twice the alpha", "r of a billion", "an auto_mapping")
            }
        ),
    ),
)  # fmt: skip
