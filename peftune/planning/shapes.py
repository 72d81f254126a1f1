"""Shapes of GPT-2: the recipe's own base by its `config.json`, and the four that are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from peftune.bundled import MODELS, bundled_folder, is_bundled
from peftune.errors import BaseModelError, UsageError, suggestion
from peftune.models.source import BaseSource, check_config, find_base

OWN = "own"
_PUBLISHED = {
    "small": (12, 768, 12),
    "medium": (24, 1024, 16),
    "large": (36, 1280, 20),
    "xl": (48, 1600, 25),
}
SIZES = (OWN, *_PUBLISHED)
"""What `--sizes` takes: the recipe's own base, and GPT-2 as it was published."""

_DESCRIPTION = [
    "config.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
]
_COUNTS = {
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
"""Numbers of a configuration that make a shape, with what transformers takes where one is missing."""

_FEW_HEADS = 4
"""Heads of a shape on which passes are measured: what they need grows with the number of heads."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A GPT-2 without its weights.

    Args:
        size: one of `SIZES`.
        name: what it is called in tables.
        config: what its `config.json` says.
    """

    size: str
    name: str
    config: Mapping[str, Any]

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return self._count("n_layer")

    @property
    def width(self) -> int:
        """How wide its hidden states are."""
        return self._count("n_embd")

    @property
    def heads(self) -> int:
        """How many heads attention has."""
        return self._count("n_head")

    @property
    def inner(self) -> int:
        """How wide the hidden states inside an MLP are."""
        return int(self.config.get("n_inner") or 4 * self.width)

    @property
    def positions(self) -> int:
        """How many tokens a text may have."""
        return self._count("n_positions")

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._count("vocab_size")

    @property
    def stored_type(self) -> torch.dtype:
        """In which type the checkpoint holds its weights, as far as the configuration tells."""
        name = self.config.get("dtype") or self.config.get("torch_dtype") or "float32"
        found: torch.dtype = getattr(torch, str(name).removeprefix("torch."), torch.float32)
        return found

    def narrowed(self) -> Shape:
        """Return the same shape with a few of its heads, and with so much of its width."""
        heads = min(self.heads, _FEW_HEADS)
        size = {"n_head": heads, "n_embd": self.width * heads // self.heads}
        if self.config.get("n_inner"):
            size["n_inner"] = max(1, self.inner * heads // self.heads)
        return Shape(self.size, self.name, {**self.config, **size})

    @property
    def alike(self) -> str:
        """What shapes have in common that differ in depth alone."""
        return json.dumps({**self.config, "n_layer": None}, sort_keys=True)

    def _count(self, key: str) -> int:
        return int(self.config.get(key, _COUNTS[key]))


def describe_base(name_or_path: str, revision: str | None = None) -> BaseSource:
    """Find a base's configuration and tokenizer; its weights are not fetched and not read.

    Raises:
        BaseModelError: there is no such model, or it is no GPT-2.
    """
    folder = Path(name_or_path).expanduser()
    if is_bundled(name_or_path):
        found = bundled_folder(name_or_path, among=MODELS)
        source = BaseSource(name_or_path, None, found, "bundled")
    elif folder.is_dir():
        source = BaseSource(folder.resolve().name, None, folder.resolve(), "folder")
    elif name_or_path.startswith((".", "/", "~")):
        return find_base(name_or_path)  # which says that there is none
    else:
        source = _described_by_hub(name_or_path, revision)
    check_config(source)
    return source


def _described_by_hub(name: str, revision: str | None) -> BaseSource:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_DESCRIPTION))
    except Exception as error:
        message = (
            f"The base model '{name}' is no local folder and its config.json could not be fetched from the hub "
            f"({type(error).__name__}). Check the name and the connection, or use a local folder or bundled:tiny-gpt2."
        )
        raise BaseModelError(message) from error
    return BaseSource(name, folder.name, folder, "hub")


def shapes_of(source: BaseSource, sizes: tuple[str, ...]) -> list[Shape]:
    """Return the shapes that are asked for, in the order of `SIZES`.

    Args:
        source: the recipe's base.
        sizes: of `SIZES`.

    Raises:
        BaseModelError: the base's configuration makes no GPT-2.
        UsageError: a size that is none.
    """
    for size in sizes:
        if size not in SIZES:
            message = f"Unknown size '{size}'. {suggestion(size, SIZES)}"
            raise UsageError(message)
    found = [Shape(OWN, source.name, _checked(source))]
    for size, (blocks, width, heads) in _PUBLISHED.items():
        config = {"n_layer": blocks, "n_embd": width, "n_head": heads}
        found.append(Shape(size, f"GPT-2 {size}", config))
    return [shape for shape in found if shape.size in sizes]


def _checked(source: BaseSource) -> dict[str, Any]:
    config = check_config(source)
    values = {key: config.get(key, usual) for key, usual in _COUNTS.items()}
    for key, value in values.items():
        if type(value) is not int or value < 1:
            message = f"The config.json of '{source.name}' has {key}: {value!r}, which must be a whole number above 0."
            raise BaseModelError(message)
    if values["n_embd"] % values["n_head"]:
        message = f"The config.json of '{source.name}' divides a width of {values['n_embd']} among {values['n_head']} heads, which leaves a rest."
        raise BaseModelError(message)
    return config
