"""The manifest `peftune.json`: what an artifact is, its base, and its reference logits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from peftune.adapters.format import ADAPTER_LIMITS, FORMAT_VERSION, MANIFEST, MAX_TEXTS, Kind
from peftune.errors import ArtifactError
from peftune.files.publishing import write_file
from peftune.files.reading import SharedFolder
from peftune.files.strict_json import parse_json
from peftune.models.fingerprint import BaseIdentity, Name, Recorded, Sha256
from peftune.models.prepare import InitializedFrom
from peftune.recipe.data import TextStep, why_unclear
from peftune.recipe.schema import StoredType
from peftune.recipe.task_type import TaskName, TaskType, task_type

Precision = Literal["float32", "int8"]
"""How the frozen weights of a base are held."""

_LARGEST = 3.4028234663852886e38
"""The largest float32: a model gives no number beyond it."""

Logit = Annotated[float, Field(allow_inf_nan=False, ge=-_LARGEST, le=_LARGEST)]


class ReferenceLogits(Recorded):
    """What an artifact makes of a few texts, each scored alone, by precision of its base.

    `logits` has a row a text: the logits; of a task without a head, the log-probabilities of the
    text's own tokens. On the base held in float32 always, and in int8 where it was trained so.
    """

    texts: list[Name] = Field(min_length=1, max_length=MAX_TEXTS)
    logits: dict[Precision, list[list[Logit]]]

    @model_validator(mode="after")
    def _every_text_has_a_row_of_one_size(self) -> ReferenceLogits:
        recorded = self.logits.get("float32")
        if recorded is None:
            message = "there are no logits on the base held in float32"
            raise ValueError(message)
        sizes = [len(row) for row in recorded]
        if len(sizes) != len(self.texts) or not all(sizes):
            message = f"there must be a row of numbers for each of the {len(self.texts)} texts"
            raise ValueError(message)
        if any([len(row) for row in rows] != sizes for rows in self.logits.values()):
            message = "the rows of float32 and int8 must be of the same sizes"
            raise ValueError(message)
        return self


class Rescaled(Recorded):
    """How an artifact was made out of another one, at another strength."""

    alpha: float = Field(ge=0, le=1)
    shallow: float | None = Field(ge=0, le=1)
    head: Literal["kept", "refitted"]
    from_sha256: Sha256


class Manifest(Recorded):
    """Everything that `peftune.load` checks before it believes an artifact.

    `clean` holds the steps that change a text before it is read, in their order. Without any the
    key is left out, so that a manifest that was written before the key was known has the spelling
    that it was written in.
    """

    format_version: Literal[2] = FORMAT_VERSION
    peftune_version: Name
    kind: Kind
    strategy: dict[str, Any]
    base: BaseIdentity
    task_name: TaskName = "single-label"
    labels: list[Name] = Field(max_length=10_000)
    label_thresholds: list[float] | None = None
    max_length: int = Field(ge=2, le=1024)
    tokenizer_sha256: Sha256
    pad_token_id: int = Field(ge=0)
    precision: Precision
    dtype: StoredType = "float32"
    files: dict[Name, Sha256]
    reference_logits: ReferenceLogits = Field(alias="behaviour")
    task: dict[str, Any] | None = None
    forgetting: list[dict[str, Any]] | None = None
    rescaled: Rescaled | None = None
    initialized_from: InitializedFrom | None = Field(default=None, alias="started_from")
    clean: list[TextStep] | None = Field(default=None, min_length=1)

    @property
    def task_type(self) -> TaskType:
        """What distinguishes its task type from the others."""
        return task_type(self.task_name)

    @model_validator(mode="after")
    def _labels_fit_the_task(self) -> Manifest:
        task = self.task_type
        if not task.fewest_labels <= len(self.labels) <= task.most_labels:
            message = f"the task type {self.task_name} does not have {len(self.labels)} labels"
            raise ValueError(message)
        if len(set(self.labels)) < len(self.labels):
            message = "two labels have the same name"
            raise ValueError(message)
        if unclear := why_unclear(self.labels):
            raise ValueError(unclear)
        limits = self.label_thresholds
        if limits is not None and (
            not self.task_type.many_labels
            or len(limits) != len(self.labels)
            or not all(0 < limit < 1 for limit in limits)
        ):
            message = (
                "label_thresholds must be one number between 0 and 1 a label of a multi-label task"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _cleans_in_each_way_once(self) -> Manifest:
        if len(set(self.clean or ())) < len(self.clean or ()):
            message = "clean names a step twice"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _reference_logits_fit_the_task(self) -> Manifest:
        recorded = self.reference_logits.logits
        if set(recorded) != {"float32", self.precision}:
            message = f"an artifact trained on a base in {self.precision} has logits in float32 and in that, and no others"
            raise ValueError(message)
        if self.labels and any(len(row) != len(self.labels) for row in recorded["float32"]):
            message = f"there must be one logit for each of the {len(self.labels)} labels"
            raise ValueError(message)
        return self


def sha256_of(content: bytes) -> Sha256:
    """Hash bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


DIGEST = "sha256"
"""The manifest's key for the hash of its own content."""


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest of an artifact, with the digest of its own content."""
    write_file(folder / MANIFEST, laid_out(manifest))


def read_manifest(folder: SharedFolder) -> tuple[Manifest, Sha256]:
    """Read a manifest strictly: no duplicate keys, no NaN, no unknown keys, nothing edited.

    Returns:
        The manifest, and its digest, by which the artifact is known: it covers every file.

    Raises:
        ArtifactError: it is missing or not as it must be.
    """
    if MANIFEST not in folder.entries:
        message = f"'{folder.name}' holds no {MANIFEST}, so it is not an artifact of peftune."
        raise ArtifactError(message)
    path = f"{folder.name}/{MANIFEST}"
    content = folder.read(MANIFEST, limit=ADAPTER_LIMITS[MANIFEST])
    values = parse_json(content, source=path)
    if not isinstance(values, dict):
        message = f"'{path}' is not a valid manifest: it is not a JSON object."
        raise ArtifactError(message)
    _refuse_other_format(values, path)
    digest = values.pop(DIGEST, None)
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = f"'{path}' is not a valid manifest: {place}: {first['msg']}."
        raise ArtifactError(message) from error
    if digest != _digest_of(values):
        message = f"'{path}' is not the manifest that was saved: its content does not fit its hash. Fetch it again."
        raise ArtifactError(message)
    _refuse_other_layout(content, manifest, path)
    return manifest, str(digest)


def _refuse_other_format(values: Mapping[str, Any], path: str) -> None:
    version = values.get("format_version")
    if type(version) is int and version != FORMAT_VERSION:
        remedy = "save it again" if version < FORMAT_VERSION else "upgrade peftune"
        message = (
            f"'{path}' has format {version}; this peftune reads format {FORMAT_VERSION}: {remedy}."
        )
        raise ArtifactError(message)


def _refuse_other_layout(content: bytes, manifest: Manifest, path: str) -> None:
    if content != laid_out(manifest):
        message = f"'{path}' says what a manifest says, but not in the bytes that peftune writes: it was changed. Fetch it again."
        raise ArtifactError(message)


def laid_out(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest with its digest: the same content has one spelling alone."""
    values = manifest.model_dump(mode="json", by_alias=True)
    if manifest.clean is None:
        del values["clean"]
    text = json.dumps(
        {**values, DIGEST: _digest_of(values)}, indent=1, ensure_ascii=False, allow_nan=False
    )
    return f"{text}\n".encode()


def _digest_of(values: Mapping[str, Any]) -> Sha256:
    """Hash a manifest's content, whatever its layout: labels and fields have no other witness."""
    return sha256_of(json.dumps(values, sort_keys=True).encode())
