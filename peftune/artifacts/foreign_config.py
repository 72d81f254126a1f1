"""The configuration of a PEFT adapter that peftune did not make: plain LoRA, or refused."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from peft import LoraConfig, TaskType

from peftune.artifacts.manifest import PEFT_CONFIG
from peftune.errors import ArtifactError
from peftune.files.folder import SharedFolder
from peftune.files.strict_json import parse_json

_MAX_BYTES = 1 << 20
_MAX_RANK = 1024
_MAX_ALPHA = 1e6
_MODULE_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}\Z")
_HEADS = {"score", "classifier"}
_OWN_CLASSES = "transformers.models.gpt2."

_READ = frozenset(
    {"layers_pattern", "layers_to_transform", "lora_alpha", "r", "target_modules"}
    | {"use_dora", "use_rslora"}
)
"""Keys whose values are checked, and followed."""

_NOT_FOLLOWED = frozenset(
    {"auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode"}
    | {"init_lora_weights", "lora_dropout", "modules_to_save", "peft_type", "peft_version"}
    | {"revision", "task_type"}
)
"""Keys that are checked or say nothing of a loaded adapter."""


_OTHER_STARTS = ("eva", "orthogonal")
"""Starts that leave the base as it is, unlike `pissa`, `olora`, `corda`, `loftq` and `lora_ga`."""


def read_peft_config(folder: SharedFolder) -> dict[str, Any]:
    """Read an adapter's configuration, if it is that of a plain LoRA.

    Raises:
        ArtifactError: it is no such configuration.
    """
    name = f"{folder.name}/{PEFT_CONFIG}"
    values = parse_json(folder.read(PEFT_CONFIG, limit=_MAX_BYTES), source=name)
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        message = f"'{name}' is no LoRA adapter; peftune reads plain LoRA adapters of other tools."
        raise ArtifactError(message)
    defaults = {field.name: field.default for field in dataclasses.fields(LoraConfig)}
    for key, value in values.items():
        if key in _READ or key in _NOT_FOLLOWED or not value or value == defaults.get(key):
            continue
        message = f"'{name}': {key} {value!r} is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened."
        raise ArtifactError(message)
    _refuse_not_plain(values, name)
    return values


def named_base(values: Mapping[str, Any], source: str) -> str:
    """Return the name of the base that a configuration gives.

    Raises:
        ArtifactError: it gives none.
    """
    name = values.get("base_model_name_or_path")
    if not isinstance(name, str):
        message = f"'{source}' does not name its base. Pass it: --base on the command line, base=… in Python."
        raise ArtifactError(message)
    return name


def lora_config(
    values: Mapping[str, Any], task_type: TaskType, *, adapted: Sequence[str], source: str
) -> LoraConfig:
    """Build a configuration of our own out of the checked values.

    Args:
        values: from `read_peft_config`.
        task_type: what the tensors say that the adapter is for.
        adapted: names of the modules that its tensors belong to.
        source: what messages call the adapter.

    Raises:
        ArtifactError: a value is beyond its range, or a target is no plain name.
    """
    rank, alpha, targets = values.get("r"), values.get("lora_alpha"), values.get("target_modules")
    if isinstance(targets, str) and targets != "all-linear":
        message = f"'{source}/{PEFT_CONFIG}': target_modules is the pattern {targets[:80]!r}, and patterns inside an artifact are not followed. Write the names of its modules there as a list; its tensors are those of {', '.join(adapted)[:200] or 'no module'}."
        raise ArtifactError(message)
    layers = values.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers
    fits = (
        type(rank) is int
        and 0 < rank <= _MAX_RANK
        and type(alpha) in (int, float)
        and isinstance(alpha, (int, float))
        and math.isfinite(alpha)
        and 0 < alpha <= _MAX_ALPHA
        and _are_names(targets)
        and (layers is None or _are_layers(layers))
        and values.get("layers_pattern") in (None, "h", ["h"])
        and all(type(values.get(key, False)) is bool for key in ("use_rslora", "use_dora"))
    )
    if not fits:
        message = f"'{source}/{PEFT_CONFIG}': r must be 1 to {_MAX_RANK}, lora_alpha positive, target_modules a list of module names, layers_to_transform a list of block numbers, and switches true or false."
        raise ArtifactError(message)
    return LoraConfig(
        task_type=task_type,
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        layers_to_transform=layers,
        layers_pattern="h" if layers is not None else None,
        use_rslora=values.get("use_rslora", False),
        use_dora=values.get("use_dora", False),
        fan_in_fan_out=True,
    )


def _refuse_not_plain(values: Mapping[str, Any], name: str) -> None:
    """Refuse what is never followed, but says that the adapter is something else."""
    start = values.get("init_lora_weights", True)
    if start in _OTHER_STARTS:
        message = f"'{name}': init_lora_weights {start!r} is a way to start that peftune does not open, although it leaves the base as it is and is over once the adapter is trained. Its tensors mean the same with \"init_lora_weights\": true; write that there."
        raise ArtifactError(message)
    modules = values.get("modules_to_save") or []
    mapping = values.get("auto_mapping") or {}
    own = isinstance(mapping, dict) and str(
        mapping.get("parent_library", _OWN_CLASSES)
    ).startswith(_OWN_CLASSES)
    faults = {
        "init_lora_weights": start if start not in (True, False, "gaussian") else None,
        "modules_to_save": None
        if isinstance(modules, list) and set(map(str, modules)) <= _HEADS
        else modules,
        "auto_mapping": None if own else mapping,
    }
    for key, value in faults.items():
        if value is not None:
            message = f"'{name}': {key} {value!r} is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened."
            raise ArtifactError(message)


def _are_names(targets: object) -> bool:
    return targets == "all-linear" or (
        isinstance(targets, list)
        and 0 < len(targets) <= 1000  # noqa: PLR2004 - beyond any GPT-2
        and all(isinstance(one, str) and _MODULE_NAME.match(one) for one in targets)
    )


def _are_layers(layers: object) -> bool:
    return isinstance(layers, list) and all(type(one) is int and 0 <= one < 1000 for one in layers)  # noqa: PLR2004
