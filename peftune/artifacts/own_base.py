"""The base that an artifact belongs to, on this machine."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from peftune.artifacts.manifest import Manifest
from peftune.artifacts.opened import Opened
from peftune.errors import ArtifactError, BaseModelError, printable
from peftune.files.remembered import last_place, remember_place
from peftune.models.fingerprint import base_fingerprint
from peftune.models.source import (
    BaseSource,
    MissingBaseError,
    find_base,
    find_base_beside,
    find_local_base,
    is_hub_id,
    weight_files,
)
from peftune.models.tokenizer import sha256_of_folder

logger = logging.getLogger(__name__)

_LONGEST_NAME = 300
_SLACK_BYTES = 64 << 20


def base_of(opened: Opened, base: str | None = None) -> BaseSource:
    """Find the base of an artifact, and make sure that it is this one.

    What the artifact says of its base is not followed anywhere: a name of its own is looked up
    among the bundled bases and those that the hub's cache already holds, and it is looked up with
    both hashes in which local folder this machine has seen that base. Whatever is found must have
    the artifact's fingerprint, which is worked out anew from the files there.

    Args:
        opened: the artifact.
        base: hub id, local folder or bundled name that the user gives; a hub id is fetched.

    Raises:
        ArtifactError: its weights are not those that the artifact belongs to.
        BaseModelError: it cannot be found.
    """
    manifest = opened.manifest
    if base is not None:
        source = find_base(base)
    elif (beside := base_beside(opened)) is not None:
        source = beside
    elif (seen := _seen_before(opened)) is not None:
        return seen
    else:
        source = base_named_inside(
            manifest.base.name, manifest.base.revision, artifact=opened.name
        )
    fingerprint = base_fingerprint(source.folder)
    if fingerprint != manifest.base.fingerprint:
        message = (
            f"'{opened.name}' belongs to the base '{manifest.base.name}' with fingerprint {manifest.base.fingerprint[:12]}…; "
            f"'{base or source.name}' has {fingerprint[:12]}… and is another model. Pass the base that it was trained on."
        )
        raise ArtifactError(message)
    return source


def remember_base(manifest: Manifest, source: BaseSource) -> None:
    """Remember on this machine, and not in the artifact, in which folder its base lies.

    Args:
        manifest: of the artifact.
        source: its base, which has the manifest's fingerprint and tokenizer.
    """
    if source.kind == "folder":
        remember_place(_identity(manifest), source.folder)


def _identity(manifest: Manifest) -> tuple[str, ...]:
    return (manifest.base.fingerprint, manifest.tokenizer_sha256, manifest.base.name)


def _seen_before(opened: Opened) -> BaseSource | None:
    """Return the artifact's base from where this machine last saw it, if it still is that base."""
    fingerprint, tokenizer, _ = identity = _identity(opened.manifest)
    folder = last_place(identity)
    if folder is None:
        return None
    try:
        source = find_base(str(folder))
        same = base_fingerprint(source.folder) == fingerprint
        same = same and sha256_of_folder(source.folder) == tokenizer
    except (BaseModelError, OSError):
        return None
    if not same:
        return None
    logger.info("the base of '%s' is taken from '%s', where it was last seen", opened.name, folder)
    return source


def largest_adapter(source: BaseSource) -> int:
    """Return the most bytes that the tensors of an adapter may have: some times their base's.

    A file beyond it is not read. LoRA of the largest rank that peftune takes stays below.
    """
    return 4 * sum(path.stat().st_size for path in weight_files(source.folder)) + _SLACK_BYTES


def base_beside(opened: Opened) -> BaseSource | None:
    """Return the base of an artifact that lies in its run folder: the start it was put on.

    Whoever made the artifact can have made it too, so it is read as strictly.

    Raises:
        ArtifactError: a file in it does not belong there, or is no plain file.
        BaseModelError: it is no GPT-2, or its files are incomplete.
    """
    folder = folder_beside(opened)
    return None if folder is None else find_base_beside(folder)


def folder_beside(opened: Opened) -> Path | None:
    """Return the folder of an artifact's base in its run folder, if there is one; it is not opened."""
    start, folder = opened.manifest.started_from, opened.folder.path
    if start is None or start.kind != "base" or folder is None:
        return None
    beside = folder.resolve().parent / "base"
    return beside if beside.is_dir() and not beside.is_symlink() else None


def base_named_inside(name: str, revision: str | None = None, *, artifact: str) -> BaseSource:
    """Find a base by the name that an artifact gives, on this machine alone.

    Args:
        name: bundled, or a hub id that the hub's cache holds.
        revision: commit of a hub id.
        artifact: what messages call the artifact.

    Raises:
        BaseModelError: there is none of that name here, or the name is a path.
    """
    try:
        return find_local_base(name, revision)
    except MissingBaseError as error:
        shown = printable(name)[:_LONGEST_NAME]
        message = f"The base '{shown}' of '{artifact}' is not on this machine, and no name in an artifact is fetched. Say where it lies, or what to fetch: base=… in Python, --base on the command line."
        if _is_path(name):
            message = f"'{artifact}' names its base by the path '{shown}', and paths inside an artifact are not followed. If the base lies there, say so yourself: --base {shlex.quote(shown)} on the command line, base=… in Python."
        raise BaseModelError(message) from error


def _is_path(name: str) -> bool:
    """Say whether a name is a path and no hub id; a folder of the working directory is one as well."""
    if not is_hub_id(name):
        return bool({"/", "\\"} & set(name)) or name.startswith((".", "~"))
    return len(name) <= _LONGEST_NAME and Path(name).is_dir()
