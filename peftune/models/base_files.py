"""Find a base model's files: bundled, in a local folder, or on the hub."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GPT2Config

from peftune.bundled import MODELS, bundled_folder, is_bundled
from peftune.errors import ArtifactError, BaseModelError, UsageError
from peftune.files.reading import given_name, local_folder, open_plain, read_plain
from peftune.files.strict_json import parse_object
from peftune.models.base_contents import (
    refuse_aliases,
    refuse_other_tensors,
    refuse_steering,
    refuse_unknown,
    refuse_values,
)
from peftune.models.tokenizer_files import TOKENIZER, TOKENIZER_CONFIG, refuse_other_tokenizer

logger = logging.getLogger(__name__)

_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
]

_NOT_WRITTEN = (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)
_ADAPTER_CONFIG = "adapter_config.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?\Z")
_CONFIG = "config.json"
_GENERATION_CONFIG = "generation_config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9_][\w.-]{0,120}\.safetensors\Z")
_BESIDE = frozenset({_CONFIG, _GENERATION_CONFIG, _WEIGHTS, _INDEX, TOKENIZER, TOKENIZER_CONFIG})
"""All that a base beside an artifact may hold, but for the shards of its weights."""

_CONFIG_BYTES = 1 << 20
_INDEX_BYTES = 1 << 22
_MOST_SHARDS = 1000
_LARGE = 64 << 20
_SPARSE = 8
"""A file that takes less than an eighth of its size on the disk is mostly holes."""

_SAVE = "Name a folder written by save_pretrained."


class MissingBaseError(BaseModelError):
    """No base of a name is on this machine."""


@dataclass(frozen=True, slots=True)
class BaseSource:
    """A base model and where its files lie.

    Args:
        name: how the user named it: a hub id, `bundled:…`, or a folder's own name.
        revision: commit on the hub; None for what does not come from there.
        folder: local folder that holds the files.
        kind: where it comes from.
    """

    name: str
    revision: str | None
    folder: Path
    kind: str

    @property
    def hub_id(self) -> str | None:
        """The name under which anyone else can find it, where there is one."""
        return self.name if self.kind == "hub" else None


def find_base(name_or_path: str, revision: str | None = None) -> BaseSource:
    """Find a GPT-2's files, downloading them where the name is a hub id.

    Raises:
        BaseModelError: there is no such model, it is not a GPT-2, or its files are incomplete.
    """
    given_name(name_or_path, "base")
    if is_bundled(name_or_path):
        source = BaseSource(
            name_or_path, None, bundled_folder(name_or_path, among=MODELS), "bundled"
        )
    elif Path(name_or_path).expanduser().is_dir():
        folder = Path(name_or_path).expanduser().resolve()
        source = BaseSource(folder.name, None, folder, "folder")
    elif name_or_path.startswith((".", "/", "~")):
        message = f"There is no folder '{name_or_path}'. A base model is a hub id such as gpt2, a local folder, or bundled:tiny-gpt2."
        raise BaseModelError(message)
    else:
        source = _from_hub(name_or_path, revision)
    _check_files(source)
    return source


def find_base_beside(folder: Path) -> BaseSource:
    """Open a base that lies beside an artifact, and that whoever made the artifact can have made.

    Nobody vouches for it, so it is read as an artifact is: files of a closed list, each of them
    plain and none a link, and settings that peftune knows.

    Raises:
        ArtifactError: a file does not belong there, or is not a plain file.
        BaseModelError: it is not a GPT-2, or its files are incomplete.
    """
    files = local_folder(folder)
    files.refuse_others(_BESIDE | set(filter(_SHARD.match, files.entries)))
    for name, path in files.entries.items():
        _refuse_sparse(path, shown=f"{files.name}/{name}")
    source = BaseSource(folder.name, None, folder, "beside")
    config = check_config(source)
    refuse_unknown(config, name=source.name)
    _check_files(source)
    refuse_other_tokenizer(folder, rows=rows_of(config), closed=True)
    return source


def _refuse_sparse(path: Path, *, shown: str) -> None:
    """Refuse a file that is not plain, or is large and mostly holes: it costs its sender nothing."""
    with open_plain(path, shown=shown) as (handle, size):
        blocks = getattr(os.fstat(handle), "st_blocks", 0)
    if size > _LARGE and 0 < blocks * 512 * _SPARSE < size:
        message = (
            f"'{shown}' has {size} bytes, and {blocks * 512} of them on the disk; it is not read."
        )
        raise ArtifactError(message)


def find_local_base(name: str, revision: str | None = None) -> BaseSource:
    """Find a base by a name that somebody else gives: no folder is looked for, nothing is fetched.

    Args:
        name: a bundled base, or a hub id that the hub's cache on this machine holds.
        revision: commit of a hub id.

    Raises:
        MissingBaseError: there is none of that name here.
        BaseModelError: it is not a GPT-2 that can be read.
    """
    if is_bundled(name):
        return find_base(name)
    message = f"There is no base '{name}' on this machine."
    if not is_hub_id(name):
        raise MissingBaseError(message)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_FILES, local_files_only=True
            )
        )
    except Exception as error:
        raise MissingBaseError(message) from error
    source = BaseSource(name, folder.name, folder, "hub")
    _check_files(source)
    return source


def is_hub_id(name: str) -> bool:
    """Say whether a name has the form of a hub id: `name` or `user/name`."""
    return _HUB_ID.match(name) is not None


def _from_hub(name: str, revision: str | None) -> BaseSource:
    from huggingface_hub import snapshot_download

    logger.info("asking the hub for the base '%s'", name)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
            message = f"The base model '{name}' cannot be kept in the hub's cache ('{error.filename}': {error.strerror}). Name a folder with room in the environment variable HF_HOME, or use a local folder or bundled:tiny-gpt2."
            raise BaseModelError(message) from error
        message = (
            f"The base model '{name}' is not a local folder and could not be fetched from the hub "
            f"({type(error).__name__}). Check the name and the connection, or use a local folder or bundled:tiny-gpt2."
        )
        raise BaseModelError(message) from error
    return BaseSource(name, folder.name, folder, "hub")


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's `config.json`.

    Raises:
        BaseModelError: it is missing or no JSON object.
    """
    if not (folder / _CONFIG).exists():
        message = f"'{folder}' holds no readable config.json, so it is not a model folder; name a folder written by save_pretrained."
        raise BaseModelError(message)
    return _read_object(folder / _CONFIG, limit=_CONFIG_BYTES)


def _read_object(path: Path, *, limit: int) -> dict[str, Any]:
    """Read a JSON object of a base; a link to a plain file is followed, as the hub's cache has them."""
    try:
        return parse_object(read_plain(path, limit=limit, follow=True), source=str(path))
    except ArtifactError as error:
        message = f"{error} {_SAVE}"
        raise BaseModelError(message) from error


def rows_of(config: Mapping[str, Any]) -> int:
    """Return how many rows the embedding of a configuration has."""
    return int(config.get("vocab_size", GPT2Config().vocab_size))


def check_length(source: BaseSource, max_length: int) -> None:
    """Refuse texts longer than the base has positions.

    Raises:
        UsageError: the length is not between 2 and the number of positions.
    """
    positions = int(read_config(source.folder).get("n_positions", 1024))
    if not 2 <= max_length <= positions:  # noqa: PLR2004 - one token carries no text
        message = f"max_length must be between 2 and the {positions} positions of '{source.name}' (got {max_length})."
        raise UsageError(message)


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder, sharded or not.

    Raises:
        BaseModelError: there are none; pickled weights are never read.
    """
    index = folder / _INDEX
    names = [_WEIGHTS]
    # Where both are there, transformers reads the one file.
    if index.exists() and not (folder / names[0]).exists():
        names = _shards(index)
    paths = [folder / name for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing and len(names) > 1:
        message = f"'{folder}' lacks {', '.join(missing)}, which {index.name} names. Fetch or copy every file of its weights."
        raise BaseModelError(message)
    if missing:
        message = f"'{folder}' lacks {', '.join(missing)}. peftune reads safetensors only; convert the weights with save_pretrained."
        raise BaseModelError(message)
    return paths


def _shards(index: Path) -> list[str]:
    """List the files that an index names, each of them in its own folder."""
    places = _read_object(index, limit=_INDEX_BYTES).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if names and all(isinstance(name, str) and _SHARD.match(name) for name in names):
        shards = sorted(set(names))
        if len(shards) <= _MOST_SHARDS:
            return shards
    message = f"'{index}' names no files of weights in its own folder, so it is damaged; save the model again with save_pretrained."
    raise BaseModelError(message)


def _check_files(source: BaseSource) -> None:
    config = check_config(source)
    if (source.folder / _ADAPTER_CONFIG).exists():
        message = f"'{source.name}' holds an {_ADAPTER_CONFIG}, which transformers would put on it unasked. Name the base's own folder, without an adapter in it."
        raise BaseModelError(message)
    if (source.folder / _GENERATION_CONFIG).exists():
        _read_object(source.folder / _GENERATION_CONFIG, limit=_CONFIG_BYTES)
    refuse_other_tensors(config, weight_files(source.folder), name=source.name)


def check_config(source: BaseSource) -> dict[str, Any]:
    """Return a base's configuration, of a GPT-2 and of nothing else.

    Raises:
        BaseModelError: there is none, it is of another model, or it steers what is loaded.
    """
    config = read_config(source.folder)
    model_type = config.get("model_type")
    if model_type != "gpt2":
        message = f"'{source.name}' is a '{model_type}' model; peftune fine-tunes GPT-2 (model_type 'gpt2')."
        raise BaseModelError(message)
    refuse_steering(config, name=source.name)
    refuse_values(config, name=source.name)
    refuse_aliases(config, name=source.name)
    return config
