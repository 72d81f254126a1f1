"""Fetch an artifact from the hub: the closed list of files at one commit, and nothing else."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from peftune._version import __version__
from peftune.errors import HubError
from peftune.files.folder import SharedFolder
from peftune.hub.cache import cached_artifact, checked_blob
from peftune.hub.closed_list import wanted_files
from peftune.hub.faults import in_one_line, within_time
from peftune.hub.listing import Listing, list_repository
from peftune.hub.names import HubName

if TYPE_CHECKING:
    from huggingface_hub import HfApi

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
