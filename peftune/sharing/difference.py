"""Two artifacts side by side."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.artifacts.load import load
from peftune.artifacts.manifest import Manifest
from peftune.artifacts.opened import Opened
from peftune.errors import UsageError
from peftune.files.paths import given_path
from peftune.sharing.behaviour_differences import (
    BehaviourDifference,
    file_difference,
    read_rows,
    recorded_differences,
    refuse_other_task,
    why_not_comparable,
)
from peftune.sharing.raw import RawArtifact, read_raw
from peftune.sharing.tensor_differences import TensorDifference, compare_tensors

_OWN_SECTIONS = frozenset({"behaviour", "files"})
"""Parts of a manifest that are compared by what they stand for."""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field of two manifests that differs.

    Args:
        field: its keys, with dots between.
        a: value in the first; None where it lacks the field.
        b: value in the second.
    """

    field: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class ArtifactDifference:
    """What `peftune.diff` found.

    Args:
        a: how messages call the first artifact.
        b: how messages call the second.
        identical: whether both have the same seal, and so the same files.
        fields: fields of the manifests that differ; files and recorded behaviour apart.
        tensors: how the tensors differ.
        recorded: how the recorded behaviour differs, by precision; None where it cannot be
            compared.
        reason: why it cannot.
        rows: how the answers to the rows of a file differ; None without one.
    """

    a: str
    b: str
    identical: bool
    fields: tuple[FieldDifference, ...]
    tensors: TensorDifference
    recorded: Mapping[str, BehaviourDifference] | None
    reason: str | None
    rows: BehaviourDifference | None

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return dataclasses.asdict(self)


def diff(
    a: str | Path,
    b: str | Path,
    *,
    file: str | Path | None = None,
    text_column: str | None = None,
    base: str | None = None,
    use_cpu: bool = False,
) -> ArtifactDifference:
    """Set two artifacts side by side: manifests, tensors, and what they make of the same texts.

    Neither base nor model is needed, unless there is a file. Tensors are compared as they lie in
    the files: two runs may learn the same update as products of quite different factors.

    Args:
        a: an adapter folder, the `model/` folder of full fine-tuning, or a plain PEFT adapter.
        b: another one.
        file: rows that both classify, each on its base: csv, tsv, json, jsonl, parquet, or .txt
            with a text a line. Labels are not needed.
        text_column: column that holds the text, if not the one that the first learned from.
        base: where the base of both lies, as for `peftune.load`.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: an artifact is damaged, or does not fit its base.
        BaseModelError: a base cannot be found.
        DataError: the file cannot be used.
        UsageError: the file asks for what the artifacts cannot answer.
    """
    first, second = read_raw(a), read_raw(b)
    both = (first.opened, second.opened)
    recorded, reason = _recorded(*both)
    tensors = compare_tensors(first.tensors(), second.tensors())
    rows = None
    if file is not None:
        manifests = _comparable(first, second)
        texts = read_rows(given_path(file, "file"), manifests[0], text_column)
        logits = [_logits(one, texts, base=base, use_cpu=use_cpu) for one in (a, b)]
        rows = file_difference((logits[0], logits[1]), manifests)
    return ArtifactDifference(
        a=first.folder.name,
        b=second.folder.name,
        identical=_seal(first) is not None and _seal(first) == _seal(second),
        fields=tuple(_fields(_said_by(first), _said_by(second))),
        tensors=tensors,
        recorded=recorded,
        reason=reason,
        rows=rows,
    )


def _seal(raw: RawArtifact) -> str | None:
    return None if raw.opened is None else raw.opened.seal


def _recorded(
    a: Opened | None, b: Opened | None
) -> tuple[Mapping[str, BehaviourDifference] | None, str | None]:
    if a is None or b is None:
        return None, "an adapter without a manifest records nothing"
    reason = why_not_comparable(a.manifest, b.manifest)
    return (None, reason) if reason else (recorded_differences(a.manifest, b.manifest), None)


def _said_by(raw: RawArtifact) -> dict[str, Any]:
    if raw.opened is None:
        return {"adapter_config": dict(raw.peft_config or {})}
    values = raw.opened.manifest.model_dump(mode="json")
    values["forgetting"] = {
        str(probe.get("name", index)): probe
        for index, probe in enumerate(values["forgetting"] or ())
    }
    return {key: value for key, value in values.items() if key not in _OWN_SECTIONS}


def _fields(a: Any, b: Any, place: tuple[str, ...] = ()) -> Iterator[FieldDifference]:  # noqa: ANN401 - JSON
    """List the values that differ, mappings key by key."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _fields(a.get(key), b.get(key), (*place, str(key)))
    elif a != b:
        yield FieldDifference(".".join(place), a, b)


def _comparable(a: RawArtifact, b: RawArtifact) -> tuple[Manifest, Manifest]:
    if a.opened is None or b.opened is None:
        message = "Rows of a file can be set against each other for artifacts of peftune only: a plain PEFT adapter does not say what its labels are. Leave the file out."
        raise UsageError(message)
    manifests = a.opened.manifest, b.opened.manifest
    refuse_other_task(*manifests, (a.folder.name, b.folder.name))
    return manifests


def _logits(
    artifact: str | Path, texts: Sequence[str], *, base: str | None, use_cpu: bool
) -> NDArray[np.float32]:
    """Classify with one artifact, and let it go before the next one is loaded."""
    found = load(artifact, base=base, use_cpu=use_cpu).logits(texts)
    gc.collect()  # modules refer to each other
    return found
