"""An artifact whose manifest has been checked, and whose files have yet to be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from peftune.artifacts.manifest import (
    ADAPTER_FILES,
    GENERATION_CONFIG,
    MANIFEST,
    MODEL_FILES,
    MODEL_WEIGHTS,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    Sha256,
    sha256_of,
)
from peftune.artifacts.manifest_file import read_manifest
from peftune.errors import ArtifactError
from peftune.files.folder import SharedFolder, local_folder
from peftune.files.paths import given_path
from peftune.hub.fetch import fetch
from peftune.hub.names import hub_name
from peftune.recipe.task import has_head
from peftune.strategies import STRATEGIES, Strategy

_SMALL_FILE_BYTES = 1 << 20
_LONGEST_NAME = 100
_SAVED_AS = ("adapter", "model")
"""The folder of an artifact in the folder of its run."""
_COMPARISON = "comparison.json"
_LARGER_FILES = {TOKENIZER: 32 << 20}


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An artifact that is what its manifest says, as far as its names tell.

    Args:
        folder: its files.
        manifest: what it says of itself, checked.
        seal: hash of the manifest, by which the artifact is known; it covers every file.
        strategy: who made it, rebuilt from the manifest.
    """

    folder: SharedFolder
    manifest: Manifest
    seal: Sha256
    strategy: Strategy

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.folder.name

    @property
    def weights(self) -> str:
        """The name of the file that holds its tensors."""
        return WEIGHTS if self.manifest.kind == "adapter" else MODEL_WEIGHTS

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """Read a file once, and check those very bytes against the manifest.

        Args:
            name: of the file.
            limit: most bytes that it may have; a megabyte if not given, more for a tokenizer.

        Raises:
            ArtifactError: it is missing, no plain file, too large, or not the file that was saved.
        """
        most = _LARGER_FILES.get(name, _SMALL_FILE_BYTES) if limit is None else limit
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
    """Return the artifact of a run folder; None where the folder is no run's.

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
        path.parent
        for path in folder.glob(f"{pattern}/{MANIFEST}")
        if path.parent.name in _SAVED_AS
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
    manifest, seal = read_manifest(folder)
    closed = ADAPTER_FILES if manifest.kind == "adapter" else MODEL_FILES
    if has_head(manifest.task_name):
        closed -= {GENERATION_CONFIG}
    folder.refuse_others(closed)
    listed = {*manifest.files, MANIFEST}
    for name in sorted((listed ^ set(folder.entries)) | (listed - closed)):
        fault = "is missing" if name in listed else "is not listed in the manifest"
        message = f"'{folder.name}/{name}' {fault}; the artifact is incomplete or was changed. Fetch it again."
        raise ArtifactError(message)
    opened = Opened(folder, manifest, seal, _strategy_of(manifest, source=folder.name))
    if opened.weights not in manifest.files:
        message = f"'{folder.name}' lists no {opened.weights}; the artifact is incomplete."
        raise ArtifactError(message)
    return opened


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
    return f"'{folder.name}' holds no {MANIFEST}, so it is no artifact of peftune. {hint}"


def written_by_trainer(folder: SharedFolder) -> str:
    """Say what to do with a folder that transformers' Trainer wrote; nothing of any other."""
    if "training_args.bin" not in folder.entries:
        return ""
    return "Trainer wrote it; peftune.save(model, folder) writes the artifact of a model that peftune.prepare returned."
