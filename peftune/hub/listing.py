"""Ask the hub what a repository holds at one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftune.errors import ArtifactError, HubError
from peftune.hub.content import Content, is_digest
from peftune.hub.names import HubName

if TYPE_CHECKING:
    from huggingface_hub import HfApi


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
