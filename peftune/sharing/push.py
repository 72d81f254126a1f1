"""Share an artifact on the hub."""

from __future__ import annotations

from pathlib import Path

from peftune.artifacts.behaviour import check_behaviour
from peftune.artifacts.load import load, load_prepared
from peftune.artifacts.manifest import MANIFEST
from peftune.artifacts.manifest_file import laid_out
from peftune.artifacts.opened import Opened, open_artifact
from peftune.errors import UsageError
from peftune.files.paths import given_name
from peftune.hub.names import HubName, parse_hub_name
from peftune.hub.push import push_files, require_access
from peftune.models.prepare import preparation_of
from peftune.recipe.task import has_head

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
        message = f"'{text}' is no name to push to. It must be user/name, without a revision: the push makes one."
        raise UsageError(message)
    return name


def _check(opened: Opened, base: str | None, *, use_cpu: bool) -> None:
    """Load it, and let it go."""
    manifest = opened.manifest
    if has_head(manifest.task_name):
        load(opened.folder, base=base, use_cpu=use_cpu)
        return
    model = load_prepared(opened, base=base, use_cpu=use_cpu)
    check_behaviour(
        model,
        preparation_of(model).tokenizer,
        manifest.behaviour,
        max_length=manifest.max_length,
        source=opened.name,
        task=manifest.task_name,
    )


def _contents(opened: Opened) -> dict[str, bytes]:
    """Return what is pushed: the manifest that was checked, and files that have its hashes."""
    weights = opened.folder.entries[opened.weights].stat().st_size
    return {MANIFEST: laid_out(opened.manifest), **opened.contents(limit=weights)}
