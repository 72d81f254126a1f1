"""Name a base by its weights, so that an adapter can tell its own base from any other."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import GPT2Config, GPT2Model

from peftune.errors import BaseModelError
from peftune.files.remembered import remembered
from peftune.models.source import read_config, weight_files

_METHOD = "trunk-1"
"""How the hash is made; another number forgets what was remembered."""

_FUNCTION_KEYS = (
    "activation_function",
    "layer_norm_epsilon",
    "n_embd",
    "n_head",
    "n_inner",
    "n_layer",
    "n_positions",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "vocab_size",
)


def base_fingerprint(folder: Path) -> str:
    """Hash the trunk of a base model: what it computes, whatever file or precision holds it.

    Covers the weights of the transformer (as float32, sorted by name) and the configuration that
    changes what they compute; not the head, which is new in every run.

    Returns:
        SHA-256, hexadecimal.

    Raises:
        BaseModelError: the files lack a weight of the trunk.
    """
    files = weight_files(folder)
    return remembered(
        "base-hashes",
        [folder / "config.json", *files],
        partial(_hash_trunk, folder, files),
        facts=_METHOD,
    )


def _hash_trunk(folder: Path, files: list[Path]) -> str:
    config = GPT2Config(**_known(read_config(folder)), bos_token_id=None, eos_token_id=None)
    with torch.device("meta"):
        expected = {name for name, _ in GPT2Model(config).named_parameters()}
    digest = hashlib.sha256(repr([(key, getattr(config, key)) for key in _FUNCTION_KEYS]).encode())
    places = _places(files)
    if missing := sorted(expected - set(places)):
        message = f"'{folder}' lacks {len(missing)} weights of a GPT-2 trunk, '{missing[0]}' first; the checkpoint is damaged or of another kind."
        raise BaseModelError(message)
    for name in sorted(expected):
        path, key = places[name]
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(key).to(torch.float32).contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _places(files: list[Path]) -> dict[str, tuple[Path, str]]:
    """Map each trunk weight to its file and its key there; checkpoints differ in the prefix."""
    places = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                places[key.removeprefix(f"{GPT2Model.base_model_prefix}.")] = (path, key)
    return places


def _known(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in _FUNCTION_KEYS if key in config}
