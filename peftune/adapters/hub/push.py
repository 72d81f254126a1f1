"""Push the files of an artifact to the hub: one commit that holds them and nothing else of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peftune.adapters.artifact import Opened, open_artifact
from peftune.adapters.format import ALL_FILES, CARD, MANIFEST
from peftune.adapters.hub.client import HubName, in_one_line, parse_hub_name, within_time
from peftune.adapters.hub.fetch import (
    NEVER_FETCHED,
    Content,
    Listing,
    client,
    list_repository,
    shown,
)
from peftune.adapters.loading import load, load_prepared
from peftune.adapters.manifest import laid_out
from peftune.adapters.reference_logits import check_reference_logits
from peftune.errors import HubError, OutputFolderError, UsageError
from peftune.files.reading import given_name
from peftune.models.prepare import preparation_of
from peftune.recipe.task_type import has_head

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi


def require_access() -> None:
    """Refuse to begin a push that cannot succeed.

    Raises:
        UsageError: there is no token, or the hub is switched off.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        message = "The hub is switched off by HF_HUB_OFFLINE, so nothing can be pushed. Unset it."
        raise UsageError(message)
    if get_token() is None:
        message = "Pushing needs a token of the hub that may write. Log in with 'hf auth login', or set HF_TOKEN."
        raise UsageError(message)


def push_files(
    name: HubName, files: Mapping[str, bytes], *, private: bool, message: str
) -> HubName:
    """Make these files the newest commit of a repository, which is created where there is none.

    Files of an older artifact that are not among them go in the same commit. What the hub says
    that it holds then is compared with what was sent.

    Args:
        name: the repository, without a revision.
        files: content by name.
        private: make a new repository private; one that exists must be so already.
        message: of the commit.

    Returns:
        The name, pinned to the commit.

    Raises:
        ArtifactError: the hub refuses the push, or a file in it.
        HubError: the hub cannot be reached, or does not hold what was sent.
        OutputFolderError: the repository holds something else.
        UsageError: there is no token, or the repository is public and must not be.
    """
    require_access()
    size = sum(len(content) for content in files.values())
    with in_one_line(name):
        api = client()
        try:
            return within_time(
                lambda: _push(api, name, files, private=private, message=message), size=size
            )
        except TimeoutError as error:
            text = f"The hub is too slow with '{name}', and whether it was pushed is not known. Push again: what is there already is not sent twice."
            raise HubError(text) from error


def _push(
    api: HfApi, name: HubName, files: Mapping[str, bytes], *, private: bool, message: str
) -> HubName:
    # None leaves it to the account, whose repositories may be private unless told otherwise.
    api.create_repo(name.repository, private=True if private else None, exist_ok=True)
    before = list_repository(api, name)
    _refuse_other_files(before)
    if private and not before.private:
        text = f"'{name}' is public on the hub, and nothing was pushed. Make it private there, or push without asking for it."
        raise UsageError(text)
    commit = api.create_commit(
        name.repository,
        _operations(before, files),
        commit_message=message,
        parent_commit=before.name.commit,
    )
    pinned = name.at(commit.oid)
    _check_arrived(list_repository(api, pinned), files)
    return pinned


def _operations(
    before: Listing, files: Mapping[str, bytes]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """List what the commit does: every file, and the end of those that are not in it any more."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    stale = sorted(set(before.files) - set(files) - NEVER_FETCHED)
    return [
        *(CommitOperationAdd(file, content) for file, content in sorted(files.items())),
        *(CommitOperationDelete(file) for file in stale),
    ]


def _refuse_other_files(before: Listing) -> None:
    """Refuse to write over what peftune did not put there."""
    present = set(before.files) - NEVER_FETCHED
    others = present - ALL_FILES
    if not others and MANIFEST not in present:
        others = present - {CARD}
    if others:
        text = f"'{before.name.repository}' holds {shown(others)} on the hub, which no artifact of peftune put there. Nothing was pushed: choose another name, or remove what is there."
        raise OutputFolderError(text)


def _check_arrived(after: Listing, files: Mapping[str, bytes]) -> None:
    arrived = {file: found for file, found in after.files.items() if file not in NEVER_FETCHED}
    for file in sorted(set(arrived) | set(files)):
        found, sent = arrived.get(file), files.get(file)
        if found is None or sent is None or found != Content.of(sent, large=found.is_large):
            text = f"'{after.name}/{file}' on the hub is not the file that was pushed. Do not share this commit; push again."
            raise HubError(text)


MESSAGE = "Share an artifact of peftune"


def push(
    artifact: str | Path,
    repository: str,
    *,
    private: bool = False,
    message: str = MESSAGE,
    base: str | None = None,
    use_cpu: bool = False,
) -> str:
    """Push an artifact to a repository of the hub, which is created where there is none.

    The artifact is loaded first, with every check of `peftune.load`, so that a damaged one is
    never pushed. One commit then holds exactly its files; those of an older artifact that are not
    among them go, and a repository that holds anything else is left alone. What the hub says that
    it holds is compared with what was sent.

    Args:
        artifact: an adapter folder, or the `model/` folder of full fine-tuning.
        repository: `user/name`.
        private: make a new repository private; one that exists must be so already.
        message: of the commit.
        base: hub id, local folder or bundled name of the base, as for `peftune.load`.
        use_cpu: load on the CPU even where there is a GPU.

    Returns:
        `user/name@commit`, which `peftune.load` takes.

    Raises:
        ArtifactError: the artifact is damaged, or the hub refuses it.
        BaseModelError: the base cannot be found.
        HubError: the hub cannot be reached, or does not hold what was sent.
        OutputFolderError: the repository holds something else.
        UsageError: the name is none, there is no token, or the repository is public and must not be.
    """
    name = _repository_of(repository)
    require_access()
    opened = open_artifact(artifact)
    _check(opened, base, use_cpu=use_cpu)
    return str(push_files(name, _contents(opened), private=private, message=message))


def _repository_of(text: str) -> HubName:
    name = parse_hub_name(given_name(text, "repository"))
    if name is None or name.revision is not None:
        message = f"'{text}' is not a name to push to. It must be user/name, without a revision: the push makes one."
        raise UsageError(message)
    return name


def _check(opened: Opened, base: str | None, *, use_cpu: bool) -> None:
    """Load it, and let it go."""
    manifest = opened.manifest
    if has_head(manifest.task_name):
        load(opened.folder, base=base, use_cpu=use_cpu)
        return
    model = load_prepared(opened, base=base, use_cpu=use_cpu)
    check_reference_logits(
        model,
        preparation_of(model).tokenizer,
        manifest.reference_logits,
        max_length=manifest.max_length,
        source=opened.name,
        task=manifest.task_name,
    )


def _contents(opened: Opened) -> dict[str, bytes]:
    """Return what is pushed: the manifest that was checked, and files that have its hashes."""
    weights = opened.folder.entries[opened.weights].stat().st_size
    return {MANIFEST: laid_out(opened.manifest), **opened.contents(limit=weights)}
