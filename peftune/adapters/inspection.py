"""Inspect an artifact: its tensors by group, where it comes from, its scores, how far its weights moved."""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

from peftune.adapters.artifact import Opened, base_of, find_artifact, folder_beside, open_artifact
from peftune.adapters.format import ADAPTER_LIMITS, MANIFEST, PEFT_CONFIG, WEIGHTS
from peftune.adapters.loading import load_prepared
from peftune.adapters.manifest import Manifest
from peftune.adapters.tensors import read_tensors
from peftune.adapters.third_party import is_peft_folder, load_third_party_adapter
from peftune.display import Block, Displayed, data_frame
from peftune.errors import ArtifactError, BaseModelError, GuardError, UsageError
from peftune.files.reading import SharedFolder
from peftune.files.safetensors_header import TensorSpec, read_header
from peftune.files.strict_json import parse_object
from peftune.models.architecture import backbone_of
from peftune.models.fingerprint import backbone_weights
from peftune.models.loading import choose_device
from peftune.models.merging import effective_backbone
from peftune.models.prepare import preparation_of
from peftune.models.weight_statistics import WeightChange, weight_changes

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_FILE = ADAPTER_LIMITS[WEIGHTS]
"""More than GPT-2 XL in float32. With no base at hand nothing else says how large a file may be."""

_LONGEST_NAME = 200
_MOST_DIGITS = 4
_OF_PEFT = ("base_model", "model")
_BACKBONE, _BLOCKS, _HEAD = "transformer", "h", "score"
_LORA = "lora_"
_PREFIXES = sorted(set(PEFT_TYPE_TO_PREFIX_MAPPING.values()), key=len, reverse=True)
"""What the names of each PEFT method's weights begin with."""


@dataclass(frozen=True, slots=True, eq=False)
class RawArtifact:
    """An artifact whose files are what its manifest says; a plain PEFT adapter has no manifest.

    Args:
        folder: its files.
        opened: the artifact, its manifest checked; None for a plain PEFT adapter.
        sizes: bytes of each file.
        specs: what each tensor is, by its name in the file.
        content: bytes of the file that holds the tensors.
        peft_config: what `adapter_config.json` of a plain PEFT adapter says, for which nothing
            vouches; None of an artifact.
    """

    folder: SharedFolder
    opened: Opened | None
    sizes: Mapping[str, int]
    specs: Mapping[str, TensorSpec]
    content: bytes
    peft_config: Mapping[str, Any] | None

    @property
    def digest(self) -> str | None:
        """Digest of the manifest, which covers every file; None without a manifest."""
        return None if self.opened is None else self.opened.digest

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return each tensor by its name in the file, in the type that the file stores.

        Raises:
            ArtifactError: one holds values that are not finite.
        """
        return read_tensors(self.content, self.specs, source=self.folder.name)


@dataclass(frozen=True, slots=True)
class Place:
    """What a tensor belongs to, as far as its name in the file tells.

    Args:
        group: such as `LoRA of attn.c_attn`, `head`, or a weight's own name within its block.
        block: number of its block; None outside of them.
    """

    group: str
    block: int | None


def read_raw(artifact: str | Path) -> RawArtifact:
    """Read an artifact, checking all that can be checked without its base.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    folder = find_artifact(artifact)
    if MANIFEST not in folder.entries and is_peft_folder(folder):
        return _read_plain(folder)
    opened = open_artifact(folder)
    contents = opened.contents(limit=_LARGEST_FILE)
    content = contents[opened.weights]
    sizes = {name: len(one) for name, one in contents.items()}
    sizes[MANIFEST] = folder.entries[MANIFEST].stat().st_size
    specs = read_header(content, source=f"{folder.name}/{opened.weights}")
    return RawArtifact(folder, opened, dict(sorted(sizes.items())), specs, content, None)


def _read_plain(folder: SharedFolder) -> RawArtifact:
    name = f"{folder.name}/{PEFT_CONFIG}"
    config = folder.read(PEFT_CONFIG, limit=ADAPTER_LIMITS[PEFT_CONFIG])
    values = parse_object(config, source=name)
    content = folder.read(WEIGHTS, limit=_LARGEST_FILE)
    specs = read_header(content, source=f"{folder.name}/{WEIGHTS}")
    sizes = {PEFT_CONFIG: len(config), WEIGHTS: len(content)}
    return RawArtifact(folder, None, sizes, specs, content, values)


def place_of(name: str) -> Place:
    """Say what a tensor belongs to, by the parts of its name: PEFT's and GPT-2's file formats.

    Args:
        name: of a tensor in a file.
    """
    parts = tuple(name[:_LONGEST_NAME].split("."))
    parts = parts[len(_OF_PEFT) :] if parts[: len(_OF_PEFT)] == _OF_PEFT else parts
    parts = parts[1:] if parts[0] == _BACKBONE else parts
    if parts[:1] == (_HEAD,):
        return Place("head", None)
    block = None
    if parts[:1] == (_BLOCKS,) and len(parts) > 2 and _is_number(parts[1]):  # noqa: PLR2004 - h, number, weight
        block, parts = int(parts[1]), parts[2:]
    for index, part in enumerate(parts):
        prefix = next((one for one in _PREFIXES if part.startswith(one)), None)
        if prefix is not None:
            method = "LoRA" if prefix == _LORA else prefix.strip("_")
            return Place(f"{method} of {'.'.join(parts[:index])}", block)
    return Place(".".join(parts), block)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) <= _MOST_DIGITS


Norms = tuple[tuple[WeightChange, ...] | None, str | None]
"""The weights that changed; or None, and why nothing is known of them."""


def weight_norms(raw: RawArtifact, *, base: str | None, use_cpu: bool) -> Norms:
    """Compare an artifact's backbone with its base, both in float32.

    Args:
        raw: the artifact.
        base: where the base lies; otherwise it is looked up on this machine.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact does not fit the base that is given.
        BaseModelError: the base that is given cannot be found.
    """
    if raw.opened is None:
        return _norms_of_third_party(raw, base=base, use_cpu=use_cpu)
    try:
        base_of(raw.opened, base)
    except BaseModelError:
        if base is not None or folder_beside(raw.opened) is not None:
            raise
        return None, f"the base '{raw.opened.manifest.base.name}' is not on this machine"
    return _of_artifact(raw.opened, base=base, use_cpu=use_cpu)


def _of_artifact(opened: Opened, *, base: str | None, use_cpu: bool) -> Norms:
    if not opened.strategy.trains_backbone:
        return (), None
    model = load_prepared(opened, base=base, use_cpu=use_cpu, in_float32=True)
    source, config = preparation_of(model).base, backbone_of(model).config
    try:
        weights = effective_backbone(model)
    except (UsageError, GuardError) as error:
        return None, str(error)
    del model
    gc.collect()  # modules refer to each other
    return weight_changes(weights, backbone_weights(source.folder), config), None


def _norms_of_third_party(raw: RawArtifact, *, base: str | None, use_cpu: bool) -> Norms:
    try:
        model, source = load_third_party_adapter(raw.folder, base, choose_device(use_cpu=use_cpu))
    except (ArtifactError, BaseModelError) as error:
        if base is not None:
            raise
        return None, str(error)
    config = backbone_of(model).config
    backbone = backbone_of(model.merge_and_unload(safe_merge=True))
    weights = {name: weight.detach().cpu() for name, weight in backbone.named_parameters()}
    return weight_changes(weights, backbone_weights(Path(source.folder)), config), None


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
        started_from: the artifact that it is initialized from; None for the untouched base.
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


@dataclass(frozen=True, slots=True, repr=False)
class Contents(Displayed):
    """What `peftune.adapters.inspect` found. What only a manifest can say is None without one.

    Args:
        artifact: how messages call it.
        kind: `adapter`, `model`, or `plain PEFT adapter`: one without a manifest.
        sha256: digest of the manifest, which covers every file.
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
        changes: the backbone's weights that differ from the base's; None where that is not known.
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

    def _blocks(self) -> Iterator[Block]:
        base = self.base.get("name") or "not named"
        yield f"{self.artifact}: {self.kind}, {self.nbytes:,} bytes, base {base}"
        if self.labels is not None:
            yield f"{self.task_name}: {', '.join(self.labels)}".rstrip(": ")
        yield [
            {
                "tensors": one.group,
                "number": one.tensors,
                "parameters": f"{one.parameters:,}",
                "bytes": f"{one.nbytes:,}",
            }
            for one in self.by_group
        ]
        if self.changes is None:
            yield f"How far weights were moved is not known: {self.reason}"
        else:
            yield f"{len(self.changes)} weights of the backbone differ from the base's."

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a group of tensors and block."""
        return data_frame(dataclasses.asdict(one) for one in self.groups)

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
    described = _of_third_party(raw) if raw.opened is None else _of_manifest(raw.opened.manifest)
    return Contents(sha256=raw.digest, **shared, **described)


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    values = manifest.model_dump(mode="json", by_alias=True)
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


def _of_third_party(raw: RawArtifact) -> dict[str, Any]:
    config = raw.peft_config or {}
    fields = ("peft_type", "r", "lora_alpha", "target_modules", "use_dora", "use_rslora")
    return {
        "kind": "plain PEFT adapter",
        "strategy": {key: config[key] for key in fields if key in config},
        "base": {
            "name": config.get("base_model_name_or_path"),
            "revision": config.get("revision"),
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
