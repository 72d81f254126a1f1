"""The artifact's format: the names of its files, the closed lists of them, and how large each may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from peftune.recipe.task_type import TaskName, has_head

Kind = Literal["adapter", "model"]
"""What an artifact is: some weights that belong to a base, or all of a model."""

FORMAT_VERSION: Literal[2] = 2

MANIFEST = "peftune.json"
CARD = "README.md"
WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
MODEL_WEIGHTS = "model.safetensors"
MODEL_CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

FOLDERS = ("adapter", "model")
"""The names of an artifact's folder in the folder of its run."""

SMALL_FILE_BYTES = 1 << 20
"""The most bytes of every file that holds neither tensors nor a vocabulary."""

_GIBIBYTE = 1 << 30

ADAPTER_LIMITS: Mapping[str, int] = {
    MANIFEST: SMALL_FILE_BYTES,
    CARD: SMALL_FILE_BYTES,
    PEFT_CONFIG: SMALL_FILE_BYTES,
    WEIGHTS: 8 * _GIBIBYTE,
}
"""Every file that an adapter may hold, with the most bytes of each."""

MODEL_LIMITS: Mapping[str, int] = {
    MANIFEST: SMALL_FILE_BYTES,
    CARD: SMALL_FILE_BYTES,
    MODEL_CONFIG: SMALL_FILE_BYTES,
    GENERATION_CONFIG: SMALL_FILE_BYTES,
    TOKENIZER_CONFIG: SMALL_FILE_BYTES,
    TOKENIZER: 32 << 20,
    MODEL_WEIGHTS: 16 * _GIBIBYTE,
}
"""Every file that a checkpoint may hold, with the most bytes of each."""

ALL_FILES = frozenset(ADAPTER_LIMITS) | frozenset(MODEL_LIMITS)

MAX_TEXTS = 16
"""Most texts on which the reference logits of an artifact are recorded."""


def limits_of(kind: Kind) -> Mapping[str, int]:
    """Return every file that an artifact of a kind may hold, with the most bytes of each."""
    return ADAPTER_LIMITS if kind == "adapter" else MODEL_LIMITS


def closed_list(kind: Kind, task: TaskName) -> frozenset[str]:
    """Return all that the folder of an artifact may hold; a classifier does not generate text."""
    files = frozenset(limits_of(kind))
    return files - {GENERATION_CONFIG} if has_head(task) else files


def weights_name(kind: Kind) -> str:
    """Return the name of the file that holds the tensors."""
    return WEIGHTS if kind == "adapter" else MODEL_WEIGHTS
