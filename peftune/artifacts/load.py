"""Load an artifact after checking it: exactly as it was saved, or refused in one line."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from torch import nn
from transformers import GPT2ForSequenceClassification

from peftune.artifacts.behaviour import check_behaviour
from peftune.artifacts.classifier import Classifier
from peftune.artifacts.manifest import (
    CARD,
    MANIFEST,
    MODEL_WEIGHTS,
    PEFT_CONFIG,
    WEIGHTS,
    Manifest,
    read_manifest,
    sha256_of,
)
from peftune.artifacts.tensors import insert_tensors, parse_tensors
from peftune.errors import ArtifactError, BaseModelError
from peftune.models.base import choose_device
from peftune.models.fingerprint import base_fingerprint
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.source import find_base
from peftune.models.tokenizer import load_tokenizer, tokenizer_sha256
from peftune.recipe.task import has_head
from peftune.strategies import STRATEGIES, Strategy

_ADAPTER_FILES = {WEIGHTS, PEFT_CONFIG, MANIFEST, CARD}


def load(folder: str | Path, *, base: str | None = None, use_cpu: bool = False) -> Classifier:
    """Load a classifier from an artifact of peftune.

    Trusts the manifest and the tensors only: files by hash, tensors by exact name, shape, type
    and finite values, the base and the tokenizer by fingerprint, and two recorded logits by
    replay. Never unpickles, and never follows a path or a name inside `adapter_config.json`.

    Args:
        folder: an adapter folder, or the `model/` folder of full fine-tuning.
        base: where the base lies, if not under the name that the manifest gives.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base; nothing is loaded.
        BaseModelError: the base cannot be found.
    """
    path = Path(folder)
    manifest = checked_manifest(path)
    if not has_head(manifest.task_name):
        message = f"'{path}' is no classifier: it has learned {manifest.task_name} and has no head. Start a run from it with model.init_from."
        raise ArtifactError(message)
    model = (
        _load_model(path, manifest, use_cpu=use_cpu)
        if manifest.kind == "model"
        else load_prepared(path, base=base, use_cpu=use_cpu)
    )
    tokenizer = (
        load_tokenizer(path) if manifest.kind == "model" else preparation_of(model).tokenizer
    )
    check_behaviour(
        model, tokenizer, manifest.behaviour, max_length=manifest.max_length, source=str(path)
    )
    return Classifier(
        model.eval(), tokenizer, tuple(manifest.labels), manifest.max_length, manifest
    )


def load_prepared(
    folder: str | Path,
    *,
    base: str | None = None,
    use_cpu: bool = False,
    in_float32: bool = False,
) -> nn.Module:
    """Load an artifact onto its base as a prepared model, whose reference is the untouched base.

    Args:
        folder: an adapter folder, or the `model/` folder of full fine-tuning.
        base: where the base lies, if not under the name that the manifest gives.
        use_cpu: stay on the CPU even where there is a GPU.
        in_float32: hold the base in float32 even where the strategy would not.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base.
        BaseModelError: the base cannot be found.
    """
    path = Path(folder)
    manifest = checked_manifest(path)
    weights = WEIGHTS if manifest.kind == "adapter" else MODEL_WEIGHTS
    content = _verified_bytes(path, manifest)
    strategy = strategy_of(manifest, source=str(path))
    base = base or base_beside(path, manifest)
    base_name = base or manifest.base.name
    refuse_other_base(base_name, manifest, source=str(path), given=base is not None)
    model = prepare_model(
        base_name,
        strategy,
        labels=manifest.labels,
        task=manifest.task_name,
        revision=manifest.base.revision if base is None else None,
        max_length=manifest.max_length,
        use_cpu=use_cpu,
        in_float32=in_float32,
    )
    tokenizer = preparation_of(model).tokenizer
    if (
        tokenizer_sha256(tokenizer) != manifest.tokenizer_sha256
        or tokenizer.pad_token_id != manifest.pad_token_id
    ):
        message = f"The tokenizer of '{base_name}' reads text differently from the one that '{path}' was trained with. Pass the base that it was trained on."
        raise ArtifactError(message)
    insert_tensors(
        model,
        parse_tensors(content[weights], source=str(path / weights)),
        source=str(path / weights),
    )
    return model.eval()


def base_beside(folder: Path, manifest: Manifest) -> str | None:
    """Return the base of an artifact that lies in its run folder: the start it was put on."""
    start = manifest.started_from
    beside = folder.resolve().parent / "base"
    if start is None or start.kind != "base" or not beside.is_dir():
        return None
    return str(beside)


def strategy_of(manifest: Manifest, *, source: str) -> Strategy:
    """Rebuild the strategy that made an artifact.

    Raises:
        ArtifactError: its fields are not what the strategy allows.
        PluginError: no such strategy is installed.
    """
    name = str(manifest.strategy.get("name"))
    fields = {key: value for key, value in manifest.strategy.items() if key != "name"}
    try:
        return STRATEGIES.get(name).model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"'{source}' names strategy '{name}' with an impossible field {'.'.join(map(str, first['loc']))}: {first['msg']}."
        raise ArtifactError(message) from error


def checked_manifest(path: Path) -> Manifest:
    """Read the manifest of an artifact folder.

    Raises:
        ArtifactError: there is no such folder, or no valid manifest in it.
    """
    if not path.is_dir():
        message = (
            f"There is no artifact folder '{path}'. Name the adapter/ or model/ folder of a run."
        )
        raise ArtifactError(message)
    if not (path / MANIFEST).is_file():
        inside = [name for name in ("adapter", "model") if (path / name / MANIFEST).is_file()]
        hint = (
            f" Did you mean '{path / inside[0]}'?"
            if inside
            else " Name the adapter/ or model/ folder of a run."
        )
        message = f"'{path}' holds no {MANIFEST}, so it is no artifact of peftune.{hint}"
        raise ArtifactError(message)
    return read_manifest(path)


def _verified_bytes(path: Path, manifest: Manifest) -> dict[str, bytes]:
    """Read each file once and check the bytes read; a file that should not be there is refused."""
    present = {entry.name for entry in path.iterdir()}
    allowed = _ADAPTER_FILES if manifest.kind == "adapter" else present
    for name in sorted(present - allowed):
        message = f"'{path / name}' does not belong into an adapter folder, and is not opened. Remove it."
        raise ArtifactError(message)
    listed = set(manifest.files) | {MANIFEST}
    for name in sorted((listed - present) | (present - listed)):
        fault = "is missing" if name in listed else "is not listed in the manifest"
        message = (
            f"'{path / name}' {fault}; the artifact is incomplete or was changed. Fetch it again."
        )
        raise ArtifactError(message)
    content = {}
    for name, expected in manifest.files.items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            message = f"'{file}' is no plain file, and is not opened."
            raise ArtifactError(message)
        content[name] = file.read_bytes()
        if sha256_of(content[name]) != expected:
            message = f"'{file}' is not the file that was saved: its hash differs from the manifest's. Fetch it again."
            raise ArtifactError(message)
    weights = WEIGHTS if manifest.kind == "adapter" else MODEL_WEIGHTS
    if weights not in content:
        message = f"'{path}' lists no {weights}; the artifact is incomplete."
        raise ArtifactError(message)
    return content


def refuse_other_base(base: str, manifest: Manifest, *, source: str, given: bool) -> None:
    """Refuse a base that is not the artifact's own.

    Args:
        base: where the base lies.
        manifest: the artifact's manifest.
        source: name of the artifact for messages.
        given: whether the user named the base, rather than the manifest.

    Raises:
        ArtifactError: its weights are not those that the artifact belongs to.
        BaseModelError: it cannot be found.
    """
    try:
        folder = find_base(base, None if given else manifest.base.revision).folder
    except BaseModelError as error:
        if given:
            raise
        message = f"The base '{base}' of '{source}' cannot be found under that name: {error} Or pass where it lies: base=… in Python, --base on the command line."
        raise BaseModelError(message) from error
    fingerprint = base_fingerprint(folder)
    if fingerprint != manifest.base.fingerprint:
        message = (
            f"'{source}' belongs to the base '{manifest.base.name}' with fingerprint {manifest.base.fingerprint[:12]}…; "
            f"'{base}' has {fingerprint[:12]}… and is another model. Pass the base that it was trained on."
        )
        raise ArtifactError(message)


def _load_model(path: Path, manifest: Manifest, *, use_cpu: bool) -> nn.Module:
    _verified_bytes(path, manifest)
    device = choose_device(use_cpu=use_cpu)
    model: nn.Module = GPT2ForSequenceClassification.from_pretrained(
        path, local_files_only=True, use_safetensors=True, device_map={"": device}, use_cache=False
    )
    return model
