"""Compare two artifacts: manifests, tensors, reference logits, and predictions on a file."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from peftune.adapters.artifact import Opened
from peftune.adapters.classifier import read_rows
from peftune.adapters.inspection import RawArtifact, place_of, read_raw
from peftune.adapters.loading import load
from peftune.adapters.manifest import Manifest
from peftune.adapters.reference_logits import arrays
from peftune.display import Block, Displayed, data_frame
from peftune.errors import UsageError
from peftune.files.reading import given_path
from peftune.tasks import methods_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """How far the tensors of one group lie apart.

    Args:
        group: such as `LoRA of attn.c_attn`, `head`, or the name of a weight.
        tensors: how many both have, of the same shape.
        changed: how many of them differ in any number.
        largest: largest absolute difference of a number.
        cosine: of all their numbers as one vector, 1 for the same direction; None where one of
            the two is zero.
    """

    group: str
    tensors: int
    changed: int
    largest: float
    cosine: float | None


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How the tensors of two artifacts differ, as they lie in the files.

    Args:
        only_in_a: names of tensors that the second lacks.
        only_in_b: names of tensors that the first lacks.
        other_shape: tensors of both with another shape, by name: the two shapes.
        groups: the others, group by group.
    """

    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    groups: tuple[GroupDifference, ...]


def compare_tensors(
    a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]
) -> TensorDifference:
    """Compare tensors by name; those of another type are compared as numbers.

    Args:
        a: tensors of the first file, by name.
        b: those of the second.
    """
    both = sorted(set(a) & set(b))
    other = {
        name: (tuple(a[name].shape), tuple(b[name].shape))
        for name in both
        if a[name].shape != b[name].shape
    }
    groups: dict[str, list[str]] = {}
    for name in both:
        if name not in other:
            groups.setdefault(place_of(name).group, []).append(name)
    return TensorDifference(
        only_in_a=tuple(sorted(set(a) - set(b))),
        only_in_b=tuple(sorted(set(b) - set(a))),
        other_shape=other,
        groups=tuple(
            _compare(group, [(a[name].double(), b[name].double()) for name in names])
            for group, names in sorted(groups.items())
        ),
    )


def _compare(group: str, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> GroupDifference:
    listed = list(pairs)
    steps = [float((one - other).abs().max()) if one.numel() else 0.0 for one, other in listed]
    product = sum(float((one * other).sum()) for one, other in listed)
    sizes = [sum(float(pair[side].square().sum()) for pair in listed) ** 0.5 for side in (0, 1)]
    # Equal vectors have the cosine 1, whatever rounding makes of it.
    same = max(steps) == 0
    cosine = None if not all(sizes) else 1.0 if same else product / (sizes[0] * sizes[1])
    return GroupDifference(group, len(listed), sum(step > 0 for step in steps), max(steps), cosine)


Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LogitsDifference:
    """How far what two artifacts make of the same texts lies apart.

    Args:
        n: texts.
        largest: largest absolute difference of a logit; of language modeling of a token's
            log-probability, in nats. None where the labels differ.
        differ: share of the texts of which they say other labels; None where there are no labels.
        ci95: exact 95% interval of that share among texts like these; None for the recorded texts,
            which are not a sample.
    """

    n: int
    largest: float | None
    differ: float | None
    ci95: tuple[float, float] | None = None


def recorded_differences(a: Manifest, b: Manifest) -> dict[str, LogitsDifference]:
    """Compare what two manifests record, by precision; no model is needed."""
    return {
        precision: _difference(arrays(rows), arrays(b.reference_logits.logits[precision]), a, b)
        for precision, rows in a.reference_logits.logits.items()
        if precision in b.reference_logits.logits
    }


def why_not_comparable(a: Manifest, b: Manifest) -> str | None:
    """Say why two records cannot be set against each other; None if they can."""
    if a.task_name != b.task_name:
        return f"their task types differ: {a.task_name} and {b.task_name}"
    if a.labels != b.labels:
        return "their labels differ, or stand in another order"
    if a.reference_logits.texts != b.reference_logits.texts:
        return "they were recorded on different texts"
    sizes = [[len(row) for row in one.reference_logits.logits["float32"]] for one in (a, b)]
    if sizes[0] != sizes[1]:
        return "they read the recorded texts as different numbers of tokens"
    return None


def refuse_other_task(a: Manifest, b: Manifest, names: tuple[str, str]) -> None:
    """Refuse to set artifacts against each other on a file that they answer in different ways.

    Raises:
        UsageError: their task types differ, or one without a head.
    """
    if a.task_name != b.task_name or not a.task_type.has_head:
        message = f"Rows of a file cannot be set against each other: '{names[0]}' has learned {a.task_name}, '{names[1]}' {b.task_name}. Leave the file out."
        raise UsageError(message)


def file_difference(
    logits: tuple[Logits, Logits], classifiers: tuple[Manifest, Manifest]
) -> LogitsDifference:
    """Compare what two classifiers make of the rows of a file.

    Args:
        logits: of both, (rows, labels).
        classifiers: their manifests.
    """
    found = _difference(list(logits[0]), list(logits[1]), *classifiers)
    if found.differ is None:
        return found
    count = round(found.differ * found.n)
    interval = stats.binomtest(count, found.n).proportion_ci(0.95, method="exact")
    return LogitsDifference(
        found.n, found.largest, found.differ, (float(interval.low), float(interval.high))
    )


def _difference(
    first: Sequence[Logits], second: Sequence[Logits], a: Manifest, b: Manifest
) -> LogitsDifference:
    largest = None
    if a.labels == b.labels:
        steps = [
            float(np.abs(one - other).max()) for one, other in zip(first, second, strict=True)
        ]
        largest = max(steps)
    differ = None
    if a.task_type.has_classes:
        assigned = [
            _assigned_labels(np.stack(rows), one) for rows, one in ((first, a), (second, b))
        ]
        changed = sum(one != other for one, other in zip(*assigned, strict=True))
        differ = changed / len(first)
    return LogitsDifference(len(first), largest, differ)


def _assigned_labels(logits: Logits, manifest: Manifest) -> list[frozenset[str]]:
    """Name the labels that are predicted for each text."""
    chosen = methods_of(manifest.task_name).decisions(logits, manifest.label_thresholds)
    return [
        frozenset(
            label for label, is_assigned in zip(manifest.labels, row, strict=True) if is_assigned
        )
        for row in (() if chosen is None else chosen)
    ]


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


@dataclass(frozen=True, slots=True, repr=False)
class ArtifactDifference(Displayed):
    """What `peftune.adapters.diff` found.

    Args:
        a: how messages call the first artifact.
        b: how messages call the second.
        identical: whether both have the same digest, and so the same files.
        fields: fields of the manifests that differ; files and reference logits apart.
        tensors: how the tensors differ.
        recorded: how the reference logits differ, by precision; None where it cannot be
            compared.
        reason: why it cannot.
        rows: how the answers to the rows of a file differ; None without one.
    """

    a: str
    b: str
    identical: bool
    fields: tuple[FieldDifference, ...]
    tensors: TensorDifference
    recorded: Mapping[str, LogitsDifference] | None
    reason: str | None
    rows: LogitsDifference | None

    def _blocks(self) -> Iterator[Block]:
        yield f"A: {self.a}\nB: {self.b}"
        if self.identical:
            yield "Both are the same artifact."
        yield [{"field": one.field, "A": one.a, "B": one.b} for one in self.fields]
        yield [dataclasses.asdict(one) for one in self.tensors.groups]
        if self.reason is not None:
            yield f"Recorded behavior cannot be compared: {self.reason}"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a group of tensors that both have."""
        return data_frame(dataclasses.asdict(one) for one in self.tensors.groups)

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
        identical=first.digest is not None and first.digest == second.digest,
        fields=tuple(_fields(_described_fields(first), _described_fields(second))),
        tensors=tensors,
        recorded=recorded,
        reason=reason,
        rows=rows,
    )


def _recorded(
    a: Opened | None, b: Opened | None
) -> tuple[Mapping[str, LogitsDifference] | None, str | None]:
    if a is None or b is None:
        return None, "an adapter without a manifest records nothing"
    reason = why_not_comparable(a.manifest, b.manifest)
    return (None, reason) if reason else (recorded_differences(a.manifest, b.manifest), None)


def _described_fields(raw: RawArtifact) -> dict[str, Any]:
    if raw.opened is None:
        return {"adapter_config": dict(raw.peft_config or {})}
    # Both parts are compared by what they stand for.
    apart = {"reference_logits", "files"}
    values = raw.opened.manifest.model_dump(mode="json", by_alias=True, exclude=apart)
    values["forgetting"] = {
        str(probe.get("name", index)): probe
        for index, probe in enumerate(values["forgetting"] or ())
    }
    return values


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
