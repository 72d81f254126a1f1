"""Bases to measure on: GPT-2's shapes with random weights, or real ones where they are at hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.bundled import MODELS, bundled_folder

DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
"""Keys of GPT-2's configuration that switch parts of the backbone off at random while training."""

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a GPT-2 is.

    Args:
        layers: blocks.
        width: hidden size.
        heads: attention heads.
        positions: longest text in tokens.
        vocabulary: rows of the token embedding.
        hub: where real weights of this shape come from, if anywhere.
    """

    layers: int
    width: int
    heads: int
    positions: int = 1024
    vocabulary: int = 50257
    hub: str | None = None

    @property
    def block_weights(self) -> int:
        """Weights of the linear layers in the blocks: what every token is multiplied with."""
        return 12 * self.layers * self.width**2

    @property
    def parameters(self) -> int:
        """All weights of the backbone, without a head."""
        vectors = self.layers * 13 * self.width + 2 * self.width  # biases and layer norms
        return self.block_weights + vectors + (self.vocabulary + self.positions) * self.width


SHAPES = {
    "tiny": Shape(2, 64, 2, positions=256, vocabulary=8192),
    "gpt2": Shape(12, 768, 12, hub="openai-community/gpt2"),
    "gpt2-medium": Shape(24, 1024, 16, hub="openai-community/gpt2-medium"),
    "gpt2-large": Shape(36, 1280, 20, hub="openai-community/gpt2-large"),
    "gpt2-xl": Shape(48, 1600, 25, hub="openai-community/gpt2-xl"),
}


@dataclass(frozen=True, slots=True)
class Base:
    """A base and what is measured on it.

    Args:
        folder: holds the weights, configuration and tokenizer.
        without_dropout: the same weights with dropout switched off in the configuration.
        kind: `random`, `hub` or `folder`: where the weights come from.
        shape: its size.
    """

    folder: Path
    without_dropout: Path
    kind: str
    shape: Shape


def base_of(name: str, work: Path, given: Path | None = None) -> Base:
    """Find a base of a shape, or make one.

    Speed does not depend on what the weights are, so random ones serve; real ones are taken where
    they lie in the hub's cache, and nothing is downloaded.

    Args:
        name: a key of `SHAPES`.
        work: folder for what is made.
        given: a folder of the user's own.
    """
    shape = SHAPES[name]
    if given is not None:
        folder, kind, shape = given, "folder", _shape_of(given)
    elif (cached := _in_hub_cache(shape.hub)) is not None:
        folder, kind = cached, "hub"
    else:
        folder, kind = work / f"base-{name}", "random"
        if not (folder / "model.safetensors").is_file():
            _write_random(shape, folder)
    return Base(folder, _without_dropout(folder, work), kind, shape)


def _write_random(shape: Shape, folder: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.positions,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        bos_token_id=0,  # the bundled tokenizer's end token
        eos_token_id=0,
    )
    being_made = folder.with_name(f"{folder.name}-being-made")
    GPT2LMHeadModel(config).save_pretrained(being_made)
    for file in _TOKENIZER:
        shutil.copy(bundled_folder("bundled:tiny-gpt2", among=MODELS) / file, being_made)
    shutil.rmtree(folder, ignore_errors=True)
    being_made.rename(folder)


def _without_dropout(folder: Path, work: Path) -> Path:
    """Put the same files beside another configuration; the weights are linked, not copied."""
    copy = work / f"{folder.name}-without-dropout"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file() and path.name != "config.json":
            (copy / path.name).symlink_to(path.resolve())
    config = _config(folder) | dict.fromkeys(DROPOUTS, 0.0)
    (copy / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return copy


def _shape_of(folder: Path) -> Shape:
    config = _config(folder)
    return Shape(
        config["n_layer"],
        config["n_embd"],
        config["n_head"],
        positions=config["n_positions"],
        vocabulary=config["vocab_size"],
    )


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def _in_hub_cache(name: str | None) -> Path | None:
    """Return the folder of a model in the hub's cache, if all that is needed lies there."""
    from huggingface_hub import try_to_load_from_cache

    if name is None:
        return None
    for repository in (name, name.rpartition("/")[2]):
        files = ("config.json", "model.safetensors", "tokenizer.json")
        found = [try_to_load_from_cache(repository, file) for file in files]
        if all(isinstance(path, str) for path in found):
            return Path(str(found[0])).parent
    return None
