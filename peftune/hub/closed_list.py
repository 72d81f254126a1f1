"""Which files a repository on the hub may hold to be an artifact, and how large each may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from peftune.errors import ArtifactError

MANIFEST = "peftune.json"
CARD = "README.md"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_WEIGHTS = "model.safetensors"
NEVER_FETCHED = frozenset({".gitattributes"})
"""What the hub itself puts into a repository."""

_MEBIBYTE = 1 << 20
_GIBIBYTE = 1 << 30
_BOTH = {MANIFEST: _MEBIBYTE, CARD: _MEBIBYTE}
ADAPTER_LIMITS: Mapping[str, int] = {
    **_BOTH,
    "adapter_config.json": _MEBIBYTE,
    ADAPTER_WEIGHTS: 8 * _GIBIBYTE,
}
"""Files of an adapter, with the most bytes of each."""

MODEL_LIMITS: Mapping[str, int] = {
    **_BOTH,
    "config.json": _MEBIBYTE,
    "generation_config.json": _MEBIBYTE,
    "tokenizer_config.json": _MEBIBYTE,
    "tokenizer.json": 32 * _MEBIBYTE,
    MODEL_WEIGHTS: 16 * _GIBIBYTE,
}
"""Files of a whole model, with the most bytes of each."""

ARTIFACT_FILES = frozenset(ADAPTER_LIMITS) | frozenset(MODEL_LIMITS)

_SHOWN = 3


def wanted_files(name: str, sizes: Mapping[str, int]) -> frozenset[str]:
    """Decide what is fetched of a repository, or refuse it before anything is.

    Args:
        name: what messages call the repository.
        sizes: bytes of every file in it, by name.

    Returns:
        Every file but what the hub itself puts there.

    Raises:
        ArtifactError: a file is missing, does not belong there, or is too large.
    """
    files = frozenset(sizes) - NEVER_FETCHED
    if MANIFEST not in files:
        message = f"'{name}' holds no {MANIFEST}, so it is no artifact of peftune. A plain PEFT adapter is loaded from a folder: download it first."
        raise ArtifactError(message)
    limits = MODEL_LIMITS if MODEL_WEIGHTS in files else ADAPTER_LIMITS
    if not files & {MODEL_WEIGHTS, ADAPTER_WEIGHTS}:
        message = f"'{name}' holds neither {ADAPTER_WEIGHTS} nor {MODEL_WEIGHTS}; the artifact is incomplete. Ask who shared it."
        raise ArtifactError(message)
    if others := files - frozenset(limits):
        message = f"'{name}' holds {shown(others)} beside the files of an artifact, so nothing of it is fetched. Ask who shared it to remove them."
        raise ArtifactError(message)
    for file in sorted(files):
        if sizes[file] > limits[file]:
            message = f"'{name}/{file}' has {sizes[file]} bytes, and may have {limits[file]}; nothing is fetched."
            raise ArtifactError(message)
    return files


def shown(names: Collection[str]) -> str:
    """List a few names for a message, and count the others."""
    first = ", ".join(f"'{name}'" for name in sorted(names)[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{first} and {more} more" if more > 0 else first
