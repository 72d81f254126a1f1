"""Write `peftune.json`, and read it strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peftune.artifacts.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    Sha256,
    sha256_of,
)
from peftune.errors import ArtifactError
from peftune.files.folder import SharedFolder
from peftune.files.publish import write_file
from peftune.files.strict_json import parse_json

MAX_MANIFEST_BYTES = 1 << 20
SEAL = "sha256"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest of an artifact, sealed with the hash of its own content."""
    write_file(folder / MANIFEST, laid_out(manifest))


def read_manifest(folder: SharedFolder) -> tuple[Manifest, Sha256]:
    """Read a manifest strictly: no duplicate keys, no NaN, no unknown keys, nothing edited.

    Returns:
        The manifest, and its seal: the hash by which the artifact is known, which covers every
        file.

    Raises:
        ArtifactError: it is missing or not as it must be.
    """
    if MANIFEST not in folder.entries:
        message = f"'{folder.name}' holds no {MANIFEST}, so it is no artifact of peftune."
        raise ArtifactError(message)
    path = f"{folder.name}/{MANIFEST}"
    content = folder.read(MANIFEST, limit=MAX_MANIFEST_BYTES)
    values = parse_json(content, source=path)
    if not isinstance(values, dict):
        message = f"'{path}' is no valid manifest: it is no JSON object."
        raise ArtifactError(message)
    _refuse_other_format(values, path)
    seal = values.pop(SEAL, None)
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = f"'{path}' is no valid manifest: {place}: {first['msg']}."
        raise ArtifactError(message) from error
    if seal != _sealed(values):
        message = f"'{path}' is not the manifest that was saved: its content does not fit its hash. Fetch it again."
        raise ArtifactError(message)
    _refuse_other_layout(content, manifest, path)
    return manifest, str(seal)


def _refuse_other_format(values: Mapping[str, Any], path: str) -> None:
    version = values.get("format_version")
    if type(version) is int and version != FORMAT_VERSION:
        remedy = "save it again" if version < FORMAT_VERSION else "upgrade peftune"
        message = (
            f"'{path}' has format {version}; this peftune reads format {FORMAT_VERSION}: {remedy}."
        )
        raise ArtifactError(message)


def _refuse_other_layout(content: bytes, manifest: Manifest, path: str) -> None:
    if content != laid_out(manifest):
        message = f"'{path}' says what a manifest says, but not in the bytes that peftune writes: it was changed. Fetch it again."
        raise ArtifactError(message)


def laid_out(manifest: Manifest) -> bytes:
    """Write a manifest with its seal: the same content has one spelling alone."""
    values = manifest.model_dump(mode="json")
    if manifest.clean is None:
        del values["clean"]
    text = json.dumps(
        {**values, SEAL: _sealed(values)}, indent=1, ensure_ascii=False, allow_nan=False
    )
    return f"{text}\n".encode()


def _sealed(values: Mapping[str, Any]) -> Sha256:
    """Hash a manifest's content, whatever its layout: labels and fields have no other witness."""
    return sha256_of(json.dumps(values, sort_keys=True).encode())
