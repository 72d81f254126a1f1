"""The tensors of an artifact as they lie in its file, read without its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

from peftune.artifacts.foreign import is_peft_folder
from peftune.artifacts.manifest import MANIFEST, PEFT_CONFIG, WEIGHTS
from peftune.artifacts.opened import Opened, find_artifact, open_artifact
from peftune.artifacts.tensors import read_tensors
from peftune.errors import ArtifactError
from peftune.files.folder import SharedFolder
from peftune.files.strict_json import parse_json
from peftune.files.tensor_header import TensorSpec, read_header

_LARGEST_FILE = 8 << 30
"""More than GPT-2 XL in float32. With no base at hand nothing else says how large a file may be."""

_MOST_JSON = 1 << 20
_LONGEST_NAME = 200
_MOST_DIGITS = 4
_OF_PEFT = ("base_model", "model")
_TRUNK, _BLOCKS, _HEAD = "transformer", "h", "score"
_LORA = "lora_"
_PREFIXES = sorted(set(PEFT_TYPE_TO_PREFIX_MAPPING.values()), key=len, reverse=True)
"""What the names of each PEFT method's weights begin with."""


@dataclass(frozen=True, slots=True, eq=False)
class RawArtifact:
    """An artifact whose files are what its manifest says; a plain PEFT adapter has no manifest.

    Args:
        folder: its files.
        opened: the artifact, its manifest checked; None for a plain PEFT adapter.
        sizes: bytes of each file.
        specs: what each tensor is, by its name in the file.
        content: bytes of the file that holds the tensors.
        peft_config: what `adapter_config.json` of a plain PEFT adapter says, for which nothing
            vouches; None of an artifact.
    """

    folder: SharedFolder
    opened: Opened | None
    sizes: Mapping[str, int]
    specs: Mapping[str, TensorSpec]
    content: bytes
    peft_config: Mapping[str, Any] | None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return each tensor by its name in the file, in the type that the file stores.

        Raises:
            ArtifactError: one holds values that are not finite.
        """
        return read_tensors(self.content, self.specs, source=self.folder.name)


@dataclass(frozen=True, slots=True)
class Place:
    """What a tensor belongs to, as far as its name in the file tells.

    Args:
        group: such as `LoRA of attn.c_attn`, `head`, or a weight's own name within its block.
        block: number of its block; None outside of them.
    """

    group: str
    block: int | None


def read_raw(artifact: str | Path) -> RawArtifact:
    """Read an artifact, checking all that can be checked without its base.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    folder = find_artifact(artifact)
    if MANIFEST not in folder.entries and is_peft_folder(folder):
        return _read_plain(folder)
    opened = open_artifact(folder)
    contents = opened.contents(limit=_LARGEST_FILE)
    content = contents[opened.weights]
    sizes = {name: len(one) for name, one in contents.items()}
    sizes[MANIFEST] = folder.entries[MANIFEST].stat().st_size
    specs = read_header(content, source=f"{folder.name}/{opened.weights}")
    return RawArtifact(folder, opened, dict(sorted(sizes.items())), specs, content, None)


def _read_plain(folder: SharedFolder) -> RawArtifact:
    name = f"{folder.name}/{PEFT_CONFIG}"
    config = folder.read(PEFT_CONFIG, limit=_MOST_JSON)
    values = parse_json(config, source=name)
    if not isinstance(values, dict):
        message = f"'{name}' is no JSON object."
        raise ArtifactError(message)
    content = folder.read(WEIGHTS, limit=_LARGEST_FILE)
    specs = read_header(content, source=f"{folder.name}/{WEIGHTS}")
    sizes = {PEFT_CONFIG: len(config), WEIGHTS: len(content)}
    return RawArtifact(folder, None, sizes, specs, content, values)


def place_of(name: str) -> Place:
    """Say what a tensor belongs to, by the parts of its name: PEFT's and GPT-2's file formats.

    Args:
        name: of a tensor in a file.
    """
    parts = tuple(name[:_LONGEST_NAME].split("."))
    parts = parts[len(_OF_PEFT) :] if parts[: len(_OF_PEFT)] == _OF_PEFT else parts
    parts = parts[1:] if parts[0] == _TRUNK else parts
    if parts[:1] == (_HEAD,):
        return Place("head", None)
    block = None
    if parts[:1] == (_BLOCKS,) and len(parts) > 2 and _is_number(parts[1]):  # noqa: PLR2004 - h, number, weight
        block, parts = int(parts[1]), parts[2:]
    for index, part in enumerate(parts):
        prefix = next((one for one in _PREFIXES if part.startswith(one)), None)
        if prefix is not None:
            method = "LoRA" if prefix == _LORA else prefix.strip("_")
            return Place(f"{method} of {'.'.join(parts[:index])}", block)
    return Place(".".join(parts), block)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) <= _MOST_DIGITS
