"""`peftune.json`: what an artifact is, what it belongs to, and how it behaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from peftune.errors import ArtifactError
from peftune.files.publishing import write_file
from peftune.files.reading import SharedFolder
from peftune.files.strict_json import parse_json, refuse_hidden
from peftune.models.prepare import StartKind
from peftune.recipe.data import TextStep, why_unclear
from peftune.recipe.schema import StoredType
from peftune.recipe.task_type import TaskName, TaskType, task_type

MANIFEST = "peftune.json"
WEIGHTS = "adapter_model.safetensors"
MODEL_WEIGHTS = "model.safetensors"
PEFT_CONFIG = "adapter_config.json"
CARD = "README.md"
MODEL_CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"

ADAPTER_FILES = frozenset({WEIGHTS, PEFT_CONFIG, MANIFEST, CARD})
"""All that an adapter folder may hold."""

MODEL_FILES = frozenset(
    {MODEL_WEIGHTS, MODEL_CONFIG, GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG}
    | {MANIFEST, CARD}
)
"""All that the folder of a whole model may hold; a classifier has no settings for generation."""

FORMAT_VERSION: Literal[2] = 2

MAX_TEXTS = 16
"""Most texts on which an artifact's behaviour is recorded."""


LONGEST_NAME = 1000
"""Most characters of a string that names something, or of a text."""


def _seen(text: str) -> str:
    refuse_hidden(text, layout="")
    return text


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(max_length=LONGEST_NAME), AfterValidator(_seen)]
"""A string that is printed: nothing in it acts on a terminal."""

Kind = Literal["adapter", "model"]
"""What an artifact is: some weights that belong to a base, or all of a model."""

Precision = Literal["float32", "int8"]
"""How the frozen weights of a base are held."""

_LARGEST = 3.4028234663852886e38
"""The largest float32: a model gives no number beyond it."""

Logit = Annotated[float, Field(allow_inf_nan=False, ge=-_LARGEST, le=_LARGEST)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BaseIdentity(_Part):
    """Which base an artifact belongs to."""

    name: Name
    revision: Name | None
    fingerprint: Sha256


class Behaviour(_Part):
    """What an artifact makes of a few texts, each scored alone, by precision of its base.

    `logits` has a row a text: the logits; of a task without a head, the log-probabilities of the
    text's own tokens. On the base held in float32 always, and in int8 where it was trained so.
    """

    texts: list[Name] = Field(min_length=1, max_length=MAX_TEXTS)
    logits: dict[Precision, list[list[Logit]]]

    @model_validator(mode="after")
    def _every_text_has_a_row_of_one_size(self) -> Behaviour:
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


class Rescaled(_Part):
    """How an artifact was made out of another one, at another strength."""

    alpha: float = Field(ge=0, le=1)
    shallow: float | None = Field(ge=0, le=1)
    head: Literal["kept", "refitted"]
    from_sha256: Sha256


class StartedFrom(_Part):
    """What the training of an artifact began as, where that was not the untouched base."""

    kind: StartKind
    sha256: Sha256
    task_name: TaskName
    origin: BaseIdentity


class Manifest(_Part):
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
    behaviour: Behaviour
    task: dict[str, Any] | None = None
    forgetting: list[dict[str, Any]] | None = None
    rescaled: Rescaled | None = None
    started_from: StartedFrom | None = None
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
    def _behaviour_fits_the_task(self) -> Manifest:
        recorded = self.behaviour.logits
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


MAX_MANIFEST_BYTES = 1 << 20
SEAL = "sha256"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest of an artifact, sealed with the hash of its own content."""
    write_file(folder / MANIFEST, laid_out(manifest))


def read_manifest(folder: SharedFolder) -> tuple[Manifest, Sha256]:
    """Read a manifest strictly: no duplicate keys, no NaN, no unknown keys, nothing edited.

    Returns:
        The manifest, and its seal: the hash by which the artifact is known, which covers every
        file.

    Raises:
        ArtifactError: it is missing or not as it must be.
    """
    if MANIFEST not in folder.entries:
        message = f"'{folder.name}' holds no {MANIFEST}, so it is no artifact of peftune."
        raise ArtifactError(message)
    path = f"{folder.name}/{MANIFEST}"
    content = folder.read(MANIFEST, limit=MAX_MANIFEST_BYTES)
    values = parse_json(content, source=path)
    if not isinstance(values, dict):
        message = f"'{path}' is no valid manifest: it is no JSON object."
        raise ArtifactError(message)
    _refuse_other_format(values, path)
    seal = values.pop(SEAL, None)
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = f"'{path}' is no valid manifest: {place}: {first['msg']}."
        raise ArtifactError(message) from error
    if seal != _sealed(values):
        message = f"'{path}' is not the manifest that was saved: its content does not fit its hash. Fetch it again."
        raise ArtifactError(message)
    _refuse_other_layout(content, manifest, path)
    return manifest, str(seal)


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
    """Write a manifest with its seal: the same content has one spelling alone."""
    values = manifest.model_dump(mode="json")
    if manifest.clean is None:
        del values["clean"]
    text = json.dumps(
        {**values, SEAL: _sealed(values)}, indent=1, ensure_ascii=False, allow_nan=False
    )
    return f"{text}\n".encode()


def _sealed(values: Mapping[str, Any]) -> Sha256:
    """Hash a manifest's content, whatever its layout: labels and fields have no other witness."""
    return sha256_of(json.dumps(values, sort_keys=True).encode())
