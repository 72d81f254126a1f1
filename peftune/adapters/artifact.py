"""Open an artifact: check its manifest and the names of its files, and find its base."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from peftune.adapters.format import (
    FOLDERS,
    MANIFEST,
    SMALL_FILE_BYTES,
    closed_list,
    limits_of,
    weights_name,
)
from peftune.adapters.hub.client import hub_name
from peftune.adapters.hub.fetch import fetch
from peftune.adapters.manifest import Manifest, read_manifest, sha256_of
from peftune.errors import ArtifactError, BaseModelError, OutputFolderError, printable
from peftune.files.hash_cache import last_place, remember_place
from peftune.files.reading import SharedFolder, given_path, local_folder
from peftune.models.base_files import (
    BaseSource,
    MissingBaseError,
    find_base,
    find_base_beside,
    find_local_base,
    is_hub_id,
    weight_files,
)
from peftune.models.fingerprint import Sha256, base_fingerprint
from peftune.models.tokenizer import sha256_of_folder
from peftune.strategies import STRATEGIES, Strategy

_LONGEST_NAME = 100
_COMPARISON = "comparison.json"


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An artifact that is what its manifest says, as far as its names tell.

    Args:
        folder: its files.
        manifest: what it says of itself, checked.
        digest: hash of the manifest, by which the artifact is known; it covers every file.
        strategy: who made it, rebuilt from the manifest.
    """

    folder: SharedFolder
    manifest: Manifest
    digest: Sha256
    strategy: Strategy

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.folder.name

    @property
    def weights(self) -> str:
        """The name of the file that holds its tensors."""
        return weights_name(self.manifest.kind)

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """Read a file once, and check those very bytes against the manifest.

        Args:
            name: of the file.
            limit: most bytes that it may have; the format's limit if not given.

        Raises:
            ArtifactError: it is missing, no plain file, too large, or not the file that was saved.
        """
        most = (
            limits_of(self.manifest.kind).get(name, SMALL_FILE_BYTES) if limit is None else limit
        )
        content = self.folder.read(name, limit=most)
        if sha256_of(content) != self.manifest.files.get(name):
            message = f"'{self.name}/{name}' is not the file that was saved: its hash differs from the manifest's. Fetch it again."
            raise ArtifactError(message)
        return content

    def contents(self, *, limit: int) -> dict[str, bytes]:
        """Read every file once, and check the very bytes that are returned.

        Args:
            limit: most bytes of the file that holds the tensors.

        Raises:
            ArtifactError: one of them is not the file that was saved, or is too large.
        """
        small = sorted(set(self.manifest.files) - {self.weights})
        contents = {name: self.read(name) for name in small}
        return {**contents, self.weights: self.read(self.weights, limit=limit)}


def find_artifact(artifact: str | Path | SharedFolder) -> SharedFolder:
    """Find the files of an artifact by what a user calls it.

    Args:
        artifact: its folder, or the run folder that it lies in; or `user/name@commit` on the hub,
            where there is no such folder; or what was found before.

    Raises:
        ArtifactError: there is nothing of that name, or the hub does not give it.
    """
    if isinstance(artifact, SharedFolder):
        return artifact
    given_path(artifact, "artifact")
    name = hub_name(artifact)
    if name is not None:
        return fetch(name)
    path = Path(artifact)
    if not path.is_dir():
        message = f"There is no artifact folder '{path}'. Name a run folder, or the adapter/ or model/ folder in it."
        raise ArtifactError(message)
    return local_folder(_artifact_in(path) or path)


def _artifact_in(folder: Path) -> Path | None:
    """Return the artifact of a run folder; None where it is not the folder of a run.

    Raises:
        ArtifactError: the folder is that of several runs.
    """
    if (folder / MANIFEST).exists():
        return None
    inside = _artifacts_below(folder, "*")
    if inside:
        return inside[0]
    several = _artifacts_below(folder, "*/*") if (folder / _COMPARISON).exists() else []
    if several:
        names = ", ".join(f"'{path}'" for path in several)
        message = f"'{folder}' is the folder of a comparison. Name one of its artifacts: {names}."
        raise ArtifactError(message)
    return None


def _artifacts_below(folder: Path, pattern: str) -> list[Path]:
    """List what runs saved below a folder."""
    return sorted(
        path.parent for path in folder.glob(f"{pattern}/{MANIFEST}") if path.parent.name in FOLDERS
    )


def open_artifact(artifact: str | Path | SharedFolder) -> Opened:
    """Check an artifact's manifest and the names of its files, and rebuild its strategy.

    Raises:
        ArtifactError: there is no such artifact, or it is not what its manifest says.
        PluginError: the strategy that made it is not installed.
    """
    folder = find_artifact(artifact)
    if MANIFEST not in folder.entries:
        raise ArtifactError(_no_manifest(folder))
    manifest, digest = read_manifest(folder)
    closed = closed_list(manifest.kind, manifest.task_type)
    folder.refuse_others(closed)
    listed = {*manifest.files, MANIFEST}
    for name in sorted((listed ^ set(folder.entries)) | (listed - closed)):
        fault = "is missing" if name in listed else "is not listed in the manifest"
        message = f"'{folder.name}/{name}' {fault}; the artifact is incomplete or was changed. Fetch it again."
        raise ArtifactError(message)
    opened = Opened(folder, manifest, digest, _strategy_of(manifest, source=folder.name))
    if opened.weights not in manifest.files:
        message = f"'{folder.name}' lists no {opened.weights}; the artifact is incomplete."
        raise ArtifactError(message)
    return opened


def refuse_inside(opened: Opened, target: Path) -> None:
    """Refuse an output folder that is the artifact's own, or lies in it.

    Raises:
        OutputFolderError: it is.
    """
    source = opened.folder.path
    if source is not None and source.resolve() in (target.resolve(), *target.resolve().parents):
        message = f"'{target}' lies in the artifact itself, which is not changed. Choose another output folder."
        raise OutputFolderError(message)


def _strategy_of(manifest: Manifest, *, source: str) -> Strategy:
    """Rebuild the strategy that made an artifact: an installed one, found by its name alone."""
    name = manifest.strategy.get("name")
    if not (isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST_NAME):
        message = f"'{source}' names no strategy."
        raise ArtifactError(message)
    fields = {key: value for key, value in manifest.strategy.items() if key != "name"}
    try:
        return STRATEGIES.get(name).model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"'{source}' names strategy '{name}' with an impossible field {'.'.join(map(str, first['loc']))}: {first['msg']}."
        raise ArtifactError(message) from error


def _no_manifest(folder: SharedFolder) -> str:
    hint = "Name a run folder, or the adapter/ or model/ folder in it."
    if {"recipe.yaml", "report.json"} <= set(folder.entries):
        hint = "It is the folder of a run that has not finished; run the same command again."
    if wrote := written_by_trainer(folder):
        hint = wrote
    return f"'{folder.name}' holds no {MANIFEST}, so it is not an artifact of peftune. {hint}"


def written_by_trainer(folder: SharedFolder) -> str:
    """Say what to do with a folder that transformers' Trainer wrote; nothing of any other."""
    if "training_args.bin" not in folder.entries:
        return ""
    return "Trainer wrote it; peftune.save(model, folder) writes the artifact of a model that peftune.prepare returned."


logger = logging.getLogger(__name__)

_LONGEST_BASE_NAME = 300
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
    """Return the base of an artifact that lies in its run folder: the backbone of another artifact.

    Whoever made the artifact can have made it too, so it is read as strictly.

    Raises:
        ArtifactError: a file in it does not belong there, or is not a plain file.
        BaseModelError: it is not a GPT-2, or its files are incomplete.
    """
    folder = folder_beside(opened)
    return None if folder is None else find_base_beside(folder)


def folder_beside(opened: Opened) -> Path | None:
    """Return the folder of an artifact's base in its run folder, if there is one; it is not opened."""
    initialized_from, folder = opened.manifest.initialized_from, opened.folder.path
    if initialized_from is None or initialized_from.kind != "base" or folder is None:
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
        shown = printable(name)[:_LONGEST_BASE_NAME]
        message = f"The base '{shown}' of '{artifact}' is not on this machine, and no name in an artifact is fetched. Say where it lies, or what to fetch: base=… in Python, --base on the command line."
        if _is_path(name):
            message = f"'{artifact}' names its base by the path '{shown}', and paths inside an artifact are not followed. If the base lies there, say so yourself: --base {shlex.quote(shown)} on the command line, base=… in Python."
        raise BaseModelError(message) from error


def _is_path(name: str) -> bool:
    """Say whether a name is a path and no hub id; a folder of the working directory is one as well."""
    if not is_hub_id(name):
        return bool({"/", "\\"} & set(name)) or name.startswith((".", "~"))
    return len(name) <= _LONGEST_BASE_NAME and Path(name).is_dir()
