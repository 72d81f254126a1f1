"""Find a base model's files: bundled, in a local folder, or on the hub."""

from __future__ import annotations

import errno
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.bundled import MODELS, bundled_folder, is_bundled
from peftune.errors import BaseModelError, UsageError
from peftune.files.paths import given_name
from peftune.models.checkpoint import refuse_other_tensors

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
_STEERING = frozenset(
    {"attn_implementation", "auto_map", "custom_pipelines", "quantization_config"}
    | {"transformers_weights"}
)
_HARMLESS = frozenset({"_name_or_path", "_num_labels", "_commit_hash"})
"""Keys that older checkpoints have, among them GPT-2's own."""


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
        BaseModelError: there is no such model, it is no GPT-2, or its files are incomplete.
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


def find_local_base(name: str, revision: str | None = None) -> BaseSource:
    """Find a base by a name that somebody else gives: no folder is looked for, nothing is fetched.

    Args:
        name: a bundled base, or a hub id that the hub's cache on this machine holds.
        revision: commit of a hub id.

    Raises:
        MissingBaseError: there is none of that name here.
        BaseModelError: it is no GPT-2 that can be read.
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
            f"The base model '{name}' is no local folder and could not be fetched from the hub "
            f"({type(error).__name__}). Check the name and the connection, or use a local folder or bundled:tiny-gpt2."
        )
        raise BaseModelError(message) from error
    return BaseSource(name, folder.name, folder, "hub")


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's `config.json`.

    Raises:
        BaseModelError: it is missing or no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"'{folder}' holds no readable config.json, so it is no model folder; name a folder written by save_pretrained."
        raise BaseModelError(message) from error
    if not isinstance(config, dict):
        message = f"'{path}' is no JSON object; name a folder written by save_pretrained."
        raise BaseModelError(message)
    return config


def check_length(source: BaseSource, max_length: int) -> None:
    """Refuse texts longer than the base has positions.

    Raises:
        UsageError: the length is not between 2 and the number of positions.
    """
    positions = int(read_config(source.folder).get("n_positions", 1024))
    if not 2 <= max_length <= positions:  # noqa: PLR2004 - one token carries no text
        message = f"max_length must be between 2 and the {positions} positions of '{source.name}' (got {max_length})."
        raise UsageError(message)


def steers_loading(key: str) -> bool:
    """Say whether a key of a model's configuration changes what is loaded, instead of what it is."""
    return key in _STEERING or (key.startswith("_") and key not in _HARMLESS)


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder, sharded or not.

    Raises:
        BaseModelError: there are none; pickled weights are never read.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    # Where both are there, transformers reads the one file.
    if index.is_file() and not (folder / names[0]).is_file():
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
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if names and all(Path(name).name == name for name in names):
            return sorted(names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    message = f"'{index}' names no files of weights, so it is damaged; save the model again with save_pretrained."
    raise BaseModelError(message)


def _check_files(source: BaseSource) -> None:
    config = check_config(source)
    if (source.folder / _ADAPTER_CONFIG).exists():
        message = f"'{source.name}' holds an {_ADAPTER_CONFIG}, which transformers would put on it unasked. Name the base's own folder, without an adapter in it."
        raise BaseModelError(message)
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
    if steering := [key for key in config if steers_loading(key)]:
        message = f"The config.json of '{source.name}' has the key '{steering[0]}', which makes transformers load other code or other weights than its files. Remove it, or save the model again with save_pretrained."
        raise BaseModelError(message)
    return config
