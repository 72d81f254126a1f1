"""Identify a base by its weights, so that an adapter finds its own base and refuses any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from transformers import GPT2Config

from peftune.errors import BaseModelError, visible
from peftune.files.hash_cache import remembered
from peftune.files.strict_json import refuse_hidden
from peftune.models.base_contents import (
    expected_shapes,
    refuse_own_head,
    refuse_unsound,
    stored_tensors,
)
from peftune.models.base_files import (
    BaseSource,
    check_length,
    find_base,
    read_config,
    weight_files,
)
from peftune.models.tokenizer import load_tokenizer

_METHOD = "backbone-2"
"""How the hash is made, and what is refused on the way; another number forgets what was remembered."""

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


LONGEST_NAME = 1000
"""Most characters of a string that names something, or of a text, in a manifest."""


def _seen(text: str) -> str:
    refuse_hidden(text, layout="")
    return text


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(max_length=LONGEST_NAME), AfterValidator(_seen)]
"""A string that is printed: nothing in it acts on a terminal."""


class Recorded(BaseModel):
    """A part of a manifest: strict, immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BaseIdentity(Recorded):
    """Which base an artifact belongs to."""

    name: Name
    revision: Name | None
    fingerprint: Sha256

    @classmethod
    def of(cls, base: BaseSource, fingerprint: str) -> BaseIdentity:
        """Identify a base that was found, without its folder."""
        name = visible(base.name)[:LONGEST_NAME]
        return cls(name=name, revision=base.revision, fingerprint=fingerprint)


def base_fingerprint(folder: Path) -> str:
    """Hash the backbone of a base model: what it computes, whatever file or precision holds it.

    Covers the weights of the transformer (as float32, sorted by name) and the configuration that
    changes what they compute; not the head, which is new in every run. Whatever has a fingerprint
    is sound: it reads every weight, so that is where their values are looked at.

    Returns:
        SHA-256, hexadecimal.

    Raises:
        BaseModelError: the files lack a weight of the backbone, hold values that are not weights, or a
            language-model head that is not the embedding.
    """
    files = weight_files(folder)
    return remembered(
        "base-hashes",
        [folder / "config.json", *files],
        partial(_hash_backbone, folder),
        facts=_METHOD,
    )


def find_sound_base(
    name_or_path: str, revision: str | None = None, *, max_length: int
) -> BaseSource:
    """Find a base, and refuse it before any row is read if nothing right can come of it.

    Args:
        name_or_path: hub id, local folder, or `bundled:tiny-gpt2`.
        revision: commit, tag or branch of a hub id.
        max_length: longest text in tokens.

    Raises:
        BaseModelError: the base cannot be found or read, its tensors are not those of its
            configuration, or its tokenizer is not that of its embedding.
        UsageError: texts are longer than the base has positions.
    """
    source = find_base(name_or_path, revision)
    check_length(source, max_length)
    base_fingerprint(source.folder)
    load_tokenizer(source.folder)
    return source


def backbone_weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Read the weights of a base's backbone, one after another, whatever file or precision holds them.

    Args:
        folder: a model folder.

    Yields:
        GPT-2's own name of a weight, and the weight in float32; sorted by name.

    Raises:
        BaseModelError: the files lack a weight of the backbone.
    """
    expected = expected_shapes(read_config(folder), name=folder.name)
    stored = stored_tensors(weight_files(folder), name=folder.name)
    if missing := sorted(set(expected) - set(stored)):
        message = f"'{folder}' lacks {len(missing)} weights of a GPT-2 backbone, '{missing[0]}' first; the checkpoint is damaged or of another kind."
        raise BaseModelError(message)
    for name in sorted(expected):
        yield name, stored[name].read().to(torch.float32).contiguous()


def _hash_backbone(folder: Path) -> str:
    config = _config(folder)
    digest = hashlib.sha256(repr([(key, getattr(config, key)) for key in _FUNCTION_KEYS]).encode())
    for name, tensor in backbone_weights(folder):
        refuse_unsound(tensor, name, name=folder.name)
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    refuse_own_head(stored_tensors(weight_files(folder), name=folder.name), name=folder.name)
    return digest.hexdigest()


def _config(folder: Path) -> GPT2Config:
    return GPT2Config(**_known(read_config(folder)), bos_token_id=None, eos_token_id=None)


def _known(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in _FUNCTION_KEYS if key in config}
