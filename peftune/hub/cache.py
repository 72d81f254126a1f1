"""Artifacts in the hub's cache: found without the network, and checked like those just fetched."""

from __future__ import annotations

from pathlib import Path

from peftune.errors import ArtifactError
from peftune.files.folder import SharedFolder
from peftune.files.strict_json import parse_json
from peftune.hub.closed_list import ADAPTER_LIMITS, MANIFEST, wanted_files
from peftune.hub.content import Content, is_digest
from peftune.hub.names import HubName


def cached_artifact(name: HubName) -> SharedFolder | None:
    """Find a pinned artifact in the cache; None where the cache does not hold all of it.

    Raises:
        ArtifactError: what is there is no artifact, or was changed.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name.repository, MANIFEST, revision=name.commit)
    if not isinstance(found, str):
        return None
    snapshot = Path(found).parent
    present = {path.name: path for path in snapshot.iterdir()}
    manifest = checked_blob(name, present[MANIFEST], _content_by_name(present[MANIFEST]))
    alone = SharedFolder(str(name), {MANIFEST: manifest})
    values = parse_json(
        alone.read(MANIFEST, limit=ADAPTER_LIMITS[MANIFEST]), source=f"{name}/{MANIFEST}"
    )
    listed = values.get("files") if isinstance(values, dict) else None
    named = listed if isinstance(listed, dict) else {}
    if not all(file in present and present[file].is_file() for file in named):
        return None
    sizes = {file: path.stat().st_size for file, path in present.items()}
    entries = {
        file: checked_blob(name, present[file], _content_by_name(present[file]))
        for file in sorted(wanted_files(str(name), sizes))
    }
    return SharedFolder(str(name), entries)


def checked_blob(name: HubName, pointer: Path, expected: Content | None) -> Path:
    """Return where the bytes of a file of the cache lie, once they are what the hub says.

    Bytes that are not are removed, so that they are fetched again when they are asked for again.

    Args:
        name: the artifact, for messages.
        pointer: the file by its name.
        expected: what it must hold; None where the cache does not tell.

    Raises:
        ArtifactError: it lies outside the cache, or holds something else.
    """
    from huggingface_hub import constants

    blob = pointer.resolve()
    if not blob.is_relative_to(Path(constants.HF_HUB_CACHE).resolve()):
        message = f"'{name}/{pointer.name}' lies outside the cache of the hub, at '{blob}', and is not opened. Remove '{pointer}'."
        raise ArtifactError(message)
    if expected is not None and not expected.is_in(blob):
        pointer.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        message = f"'{name}/{pointer.name}' does not hold the bytes that the hub has under that name: they were changed on the way or in the cache. They are removed; try again."
        raise ArtifactError(message)
    return blob


def _content_by_name(pointer: Path) -> Content | None:
    """Read what a file of the cache must hold off its blob, which is named after its hash."""
    if not pointer.is_symlink():
        return None
    digest = pointer.readlink().name
    return Content(pointer.stat().st_size, digest) if is_digest(digest) else None
