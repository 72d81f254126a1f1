"""What is inside an artifact: its tensors by group, where it comes from, what it scored."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.artifacts.manifest import Manifest
from peftune.files.tensor_header import TensorSpec
from peftune.models.weight_changes import WeightChange
from peftune.sharing.raw import RawArtifact, place_of, read_raw
from peftune.sharing.weight_norms import weight_norms


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors that belong together, in one block.

    Args:
        group: such as `LoRA of attn.c_attn`, `head`, or the name of a weight.
        block: number of the block, from 0; None outside of blocks.
        tensors: how many there are.
        parameters: numbers in them.
        nbytes: bytes that they take in the file.
    """

    group: str
    block: int | None
    tensors: int
    parameters: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an artifact comes from, as its manifest says.

    Args:
        peftune_version: the version that saved it.
        started_from: what its training began as; None for the untouched base.
        rescaled: how it was made out of another artifact, if it was.
        data: name of the data that it was scored on.
        trained_on: what was learned from: rows, and the fingerprint of the data; None where it
            was not recorded.
    """

    peftune_version: str
    started_from: Mapping[str, Any] | None
    rescaled: Mapping[str, Any] | None
    data: str | None
    trained_on: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What `peftune.inspect` found. What only a manifest can say is None without one.

    Args:
        artifact: how messages call it.
        kind: `adapter`, `model`, or `plain PEFT adapter`: one without a manifest.
        sha256: seal of the manifest, which covers every file.
        files: bytes of each file.
        groups: tensors by group and block.
        dtypes: numbers of each element type, by safetensors' name of the type.
        strategy: name and fields; of a plain PEFT adapter what its configuration says.
        base: name, revision and fingerprint.
        task_name: what was learned.
        labels: label names in the order of their ids.
        max_length: longest text in tokens.
        clean: steps that change a text before it is read.
        precision: how the base was held in training.
        scores: what it scored, with the keys of a report's `learning`.
        forgetting: what probes measured.
        provenance: where it comes from.
        changes: the trunk's weights that differ from the base's; None where that is not known.
        reason: why the changes are not known.
    """

    artifact: str
    kind: str
    sha256: str | None
    files: Mapping[str, int]
    groups: tuple[TensorGroup, ...]
    dtypes: Mapping[str, int]
    strategy: Mapping[str, Any]
    base: Mapping[str, Any]
    task_name: str | None
    labels: tuple[str, ...] | None
    max_length: int | None
    clean: tuple[str, ...]
    precision: str | None
    scores: Mapping[str, Any] | None
    forgetting: tuple[Mapping[str, Any], ...]
    provenance: Provenance | None
    changes: tuple[WeightChange, ...] | None
    reason: str | None

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    @property
    def by_group(self) -> tuple[TensorGroup, ...]:
        """The groups with all blocks together, the largest first."""
        names = dict.fromkeys(one.group for one in self.groups)
        sums = [
            _together(name, None, [g for g in self.groups if g.group == name]) for name in names
        ]
        return tuple(sorted(sums, key=lambda one: -one.nbytes))

    @property
    def outliers(self) -> tuple[WeightChange, ...]:
        """The weights that moved otherwise than the same weight of other blocks."""
        return tuple(one for one in self.changes or () if one.outlier)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {**dataclasses.asdict(self), "nbytes": self.nbytes}


def inspect(artifact: str | Path, *, base: str | None = None, use_cpu: bool = False) -> Contents:
    """Say what is inside an artifact.

    The files are checked as far as they can be without the base. Where the base is on this machine,
    or given, the artifact is loaded onto it, and every weight that changed is measured against the
    base's. What stands out is information and no verdict: a good adapter may have outliers, and a
    bad one none.

    Args:
        artifact: an adapter folder, the `model/` folder of full fine-tuning, or the folder of a
            plain PEFT adapter.
        base: where the base lies, as for `peftune.load`.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base.
        BaseModelError: the base that is given cannot be found.
    """
    raw = read_raw(artifact)
    changes, reason = weight_norms(raw, base=base, use_cpu=use_cpu)
    shared: dict[str, Any] = {
        "artifact": raw.folder.name,
        "files": raw.sizes,
        "groups": _groups(raw.specs),
        "dtypes": _dtypes(raw.specs),
        "changes": changes,
        "reason": reason,
    }
    if raw.opened is None:
        return Contents(**shared, **_of_plain(raw))
    return Contents(sha256=raw.opened.seal, **shared, **_of_manifest(raw.opened.manifest))


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    values = manifest.model_dump(mode="json")
    scores = values["task"] or {}
    return {
        "kind": manifest.kind,
        "strategy": values["strategy"],
        "base": values["base"],
        "task_name": manifest.task_name,
        "labels": tuple(manifest.labels),
        "max_length": manifest.max_length,
        "clean": tuple(manifest.clean or ()),
        "precision": manifest.precision,
        "scores": values["task"],
        "forgetting": tuple(values["forgetting"] or ()),
        "provenance": Provenance(
            peftune_version=manifest.peftune_version,
            started_from=values["started_from"],
            rescaled=values["rescaled"],
            data=scores.get("data"),
            trained_on=scores.get("trained_on"),
        ),
    }


def _of_plain(raw: RawArtifact) -> dict[str, Any]:
    said = raw.peft_config or {}
    fields = ("peft_type", "r", "lora_alpha", "target_modules", "use_dora", "use_rslora")
    return {
        "kind": "plain PEFT adapter",
        "sha256": None,
        "strategy": {key: said[key] for key in fields if key in said},
        "base": {
            "name": said.get("base_model_name_or_path"),
            "revision": said.get("revision"),
            "fingerprint": None,
        },
        "task_name": None,
        "labels": None,
        "max_length": None,
        "clean": (),
        "precision": None,
        "scores": None,
        "forgetting": (),
        "provenance": None,
    }


def _groups(specs: Mapping[str, TensorSpec]) -> tuple[TensorGroup, ...]:
    found: dict[tuple[str, int | None], list[TensorGroup]] = {}
    for name, spec in specs.items():
        place = place_of(name)
        one = TensorGroup(place.group, place.block, 1, spec.size, spec.nbytes)
        found.setdefault((place.group, place.block), []).append(one)
    whole = [_together(*key, parts) for key, parts in found.items()]
    last = max((one.block for one in whole if one.block is not None), default=0) + 1
    return tuple(
        sorted(whole, key=lambda one: (last if one.block is None else one.block, one.group))
    )


def _together(group: str, block: int | None, parts: Iterable[TensorGroup]) -> TensorGroup:
    listed = list(parts)
    return TensorGroup(
        group,
        block,
        sum(one.tensors for one in listed),
        sum(one.parameters for one in listed),
        sum(one.nbytes for one in listed),
    )


def _dtypes(specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for spec in specs.values():
        counted[spec.dtype] += spec.size
    return dict(sorted(counted.items()))
