"""Fetch an artifact from the hub: the closed list of files at one commit, and nothing else."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from peftune._version import __version__
from peftune.adapters.format import ADAPTER_LIMITS, MANIFEST, MODEL_LIMITS, MODEL_WEIGHTS, WEIGHTS
from peftune.adapters.hub.client import HubName, in_one_line, within_time
from peftune.errors import ArtifactError, HubError
from peftune.files.reading import SharedFolder
from peftune.files.strict_json import parse_json

if TYPE_CHECKING:
    from huggingface_hub import HfApi


NEVER_FETCHED = frozenset({".gitattributes"})
"""What the hub itself puts into a repository."""

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
        message = f"'{name}' holds no {MANIFEST}, so it is not an artifact of peftune. A plain PEFT adapter is loaded from a folder: download it first."
        raise ArtifactError(message)
    limits = MODEL_LIMITS if MODEL_WEIGHTS in files else ADAPTER_LIMITS
    if not files & {MODEL_WEIGHTS, WEIGHTS}:
        message = f"'{name}' holds neither {WEIGHTS} nor {MODEL_WEIGHTS}; the artifact is incomplete. Ask who shared it."
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


_CHUNK = 1 << 20
_SHA256_DIGITS = 64
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file by its hash.

    Args:
        size: bytes.
        digest: hexadecimal; the SHA-256 of a large file, or git's own SHA-1 of a small one.
    """

    size: int
    digest: str

    @classmethod
    def of(cls, content: bytes, *, large: bool) -> Content:
        """Say what the hub must say of these bytes, stored as a large file or a small one."""
        found = _hash(len(content), large=large)
        found.update(content)
        return cls(len(content), found.hexdigest())

    @property
    def is_large(self) -> bool:
        """Whether the hub stores the file beside git."""
        return len(self.digest) == _SHA256_DIGITS

    def is_in(self, path: Path) -> bool:
        """Say whether a file holds exactly this content."""
        if path.stat().st_size != self.size:
            return False
        found = _hash(self.size, large=self.is_large)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
        return found.hexdigest() == self.digest


def is_digest(text: str) -> bool:
    """Say whether a text can be a hash of the hub."""
    return _DIGEST.fullmatch(text) is not None


def _hash(size: int, *, large: bool) -> _Hash:
    if large:
        return hashlib.sha256()
    found = hashlib.sha1(usedforsecurity=False)  # what git has; the manifest holds SHA-256 too
    found.update(b"blob %d\0" % size)
    return found


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit.

    Args:
        name: pinned to the commit.
        files: what each file holds, by its path in the repository.
        private: whether only its owners can read it.
    """

    name: HubName
    files: Mapping[str, Content]
    private: bool

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {file: content.size for file, content in self.files.items()}


def list_repository(api: HfApi, name: HubName) -> Listing:
    """Ask for the commit of a revision and the files at that commit, in one request.

    Raises:
        ArtifactError: the repository bears another name now.
        HubError: the answer is for another commit, or lacks what must stand in it.
    """
    from huggingface_hub import constants

    found = api.model_info(
        name.repository,
        revision=name.revision,
        files_metadata=True,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    if found.id != name.repository:
        message = f"The hub leads from '{name.repository}' to '{found.id}'. If that is what you mean, ask for it by that name."
        raise ArtifactError(message)
    pinned = name.at(str(found.sha))
    if pinned.commit is None or (name.commit is not None and name.commit != found.sha):
        message = f"The hub was asked for '{name}' and answers for commit '{found.sha}'; nothing is fetched. Try again; check HF_ENDPOINT if it is set."
        raise HubError(message)
    files = {}
    for file in found.siblings or []:
        digest = file.lfs.sha256 if file.lfs else file.blob_id
        size = file.lfs.size if file.lfs else file.size
        if not isinstance(size, int) or not isinstance(digest, str) or not is_digest(digest):
            message = f"The hub does not say what '{pinned}/{file.rfilename}' holds; nothing is fetched. Try again; check HF_ENDPOINT if it is set."
            raise HubError(message)
        files[file.rfilename] = Content(size, digest)
    return Listing(pinned, files, private=bool(found.private))


def cached_artifact(name: HubName) -> SharedFolder | None:
    """Find a pinned artifact in the cache; None where the cache does not hold all of it.

    Raises:
        ArtifactError: what is there is not an artifact, or was changed.
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
        alone.read(MANIFEST, limit=ADAPTER_LIMITS[MANIFEST]),
        source=f"{name}/{MANIFEST}",
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


logger = logging.getLogger(__name__)


def fetch(name: HubName) -> SharedFolder:
    """Fetch an artifact, or find it in the hub's cache.

    A name with a commit needs no network once it was fetched. Of any other name, the commit is
    asked for and said, and everything is fetched at that commit. What the repository holds is
    checked before anything is fetched; what was fetched is checked by the hub's own hashes.

    Args:
        name: which artifact, and at which revision.

    Returns:
        Its files, where they lie in the cache.

    Raises:
        ArtifactError: there is no such artifact, it may not be read, or is not as it must be.
        HubError: the hub cannot be reached, is too slow, or does not answer as it must.
    """
    with in_one_line(name):
        if name.commit is not None and (found := cached_artifact(name)) is not None:
            return found
        api = client()
        listing = within_time(lambda: list_repository(api, name))
        files = sorted(wanted_files(str(listing.name), listing.sizes))
        if name.commit is None:
            _say_unpinned(name, listing.name)
        logger.info("fetching '%s' from the hub", listing.name)
        size = sum(listing.sizes[file] for file in files)
        entries = within_time(
            lambda: {file: _download(api, listing, file) for file in files}, size=size
        )
    return SharedFolder(str(listing.name), entries)


def client() -> HfApi:
    """Make the hub's own client, which says for whom it asks."""
    from huggingface_hub import HfApi

    return HfApi(library_name="peftune", library_version=__version__)


def _download(api: HfApi, listing: Listing, file: str) -> Path:
    name = listing.name
    pointer = Path(api.hf_hub_download(name.repository, file, revision=name.commit))
    if pointer.parent.name != name.commit:
        message = f"The hub was asked for '{name}/{file}' and answers for commit '{pointer.parent.name}'; the file is not opened. Try again; check HF_ENDPOINT if it is set."
        raise HubError(message)
    return checked_blob(name, pointer, listing.files[file])


@functools.cache
def _say_unpinned(name: HubName, pinned: HubName) -> None:
    """Tell once which commit a name without one stands for."""
    logger.warning(
        "'%s' is not pinned; it is commit %s now; pin it as %s", name, pinned.commit, pinned
    )
