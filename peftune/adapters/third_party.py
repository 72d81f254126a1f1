"""Load third-party adapters: PEFT LoRA adapters that have no manifest, read as strictly as artifacts."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from peft import set_peft_model_state_dict as insert_into_peft
from transformers import GPT2ForSequenceClassification, PreTrainedModel

from peftune.adapters.artifact import base_named_inside, largest_adapter, written_by_trainer
from peftune.adapters.classifier import Classifier
from peftune.adapters.format import ADAPTER_LIMITS, PEFT_CONFIG, WEIGHTS
from peftune.adapters.tensors import ADAPTER_NAME, read_tensors
from peftune.errors import ArtifactError, UsageError, first_line
from peftune.files.reading import SharedFolder, local_folder
from peftune.files.safetensors_header import TensorSpec, read_header
from peftune.files.strict_json import parse_object
from peftune.models.architecture import label_count
from peftune.models.base_files import BaseSource, find_base
from peftune.models.loading import load_base, load_language_model
from peftune.models.tokenizer import load_tokenizer

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
        ArtifactError: it is not such a configuration.
    """
    name = f"{folder.name}/{PEFT_CONFIG}"
    values = parse_object(folder.read(PEFT_CONFIG, limit=ADAPTER_LIMITS[PEFT_CONFIG]), source=name)
    if values.get("peft_type") != "LORA":
        message = (
            f"'{name}' is not a LoRA adapter; peftune reads plain LoRA adapters of other tools."
        )
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
        ArtifactError: a value is beyond its range, or a target is not a plain name.
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


logger = logging.getLogger(__name__)

HEAD = "base_model.model.score.weight"
_MAX_LABELS = 10_000


def is_peft_folder(folder: SharedFolder) -> bool:
    """Say whether a folder looks like a PEFT adapter."""
    return PEFT_CONFIG in folder.entries


def base_named_by(folder: SharedFolder) -> str:
    """Return the name of the base that an adapter's configuration gives.

    Raises:
        ArtifactError: it gives none.
    """
    return named_base(read_peft_config(folder), folder.name)


def load_third_party_classifier(
    folder: SharedFolder, *, base: str | None, labels: Sequence[str] | None, device: torch.device
) -> Classifier:
    """Load a plain PEFT LoRA classifier, of which somebody else knows the base and the labels.

    Args:
        folder: its files.
        base: where the base lies.
        labels: label names in the order of their ids.
        device: where the model lives.

    Raises:
        ArtifactError: it is not a plain LoRA classifier, or its tensors do not fit the base exactly.
        BaseModelError: the base cannot be found.
        UsageError: base or labels are missing, or there are more or fewer than the head has.
    """
    if base is None or labels is None:
        message = f"'{folder.name}' carries no manifest, so it does not say to which base and labels it belongs. Pass both: base=… and labels=[…]."
        if wrote := written_by_trainer(folder):
            message = f"{message} {wrote}"
        raise UsageError(message)
    model, source = load_third_party_adapter(folder, base, device)
    inner = model.get_base_model()
    if not isinstance(inner, GPT2ForSequenceClassification):
        message = f"'{folder.name}' is not a classifier: it has no classification head."
        raise ArtifactError(message)
    count = label_count(model)
    if len(labels) != count:
        message = f"'{folder.name}' has {count} labels; {len(labels)} are given."
        raise UsageError(message)
    tokenizer = load_tokenizer(source.folder)
    inner.config.id2label = dict(enumerate(labels))
    inner.config.label2id = {label: index for index, label in enumerate(labels)}
    inner.config.pad_token_id = tokenizer.pad_token_id
    logger.warning(
        "'%s' carries no manifest: nothing binds it to the base '%s' or to these labels, and nothing tells whether it behaves as when it was saved",
        folder.name,
        source.name,
    )
    length = min(int(inner.config.n_positions), 1024)
    return Classifier(model, tokenizer, tuple(labels), length)


def load_third_party_adapter(
    folder: SharedFolder | Path, base: str | None, device: torch.device
) -> tuple[PeftModel, BaseSource]:
    """Load a plain PEFT LoRA adapter onto its base.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        base: where the base lies; otherwise a base of the name in the adapter's configuration, if
            it is on this machine.
        device: where the model lives.

    Raises:
        ArtifactError: it is not a plain LoRA, or its tensors do not fit the base exactly.
        BaseModelError: the base cannot be found.
    """
    files = folder if isinstance(folder, SharedFolder) else local_folder(folder)
    values = read_peft_config(files)
    source = (
        find_base(base)
        if base is not None
        else base_named_inside(named_base(values, files.name), artifact=files.name)
    )
    if WEIGHTS not in files.entries:
        message = f"'{files.name}' holds no {WEIGHTS}; pickled adapters are never opened. Save it again with safetensors."
        raise ArtifactError(message)
    name = f"{files.name}/{WEIGHTS}"
    content = files.read(WEIGHTS, limit=largest_adapter(source))
    found = read_header(content, source=name)
    task_type = TaskType.SEQ_CLS if HEAD in found else TaskType.CAUSAL_LM
    config = lora_config(values, task_type, adapted=_adapted(found), source=files.name)
    bare = _base_model(source, found, device)
    try:
        model = get_peft_model(bare, config)
    except ValueError as error:
        message = f"'{files.name}/{PEFT_CONFIG}' does not fit '{source.name}': {first_line(error)[:200]}."
        raise ArtifactError(message) from error
    wanted = get_peft_model_state_dict(
        model, adapter_name=ADAPTER_NAME, save_embedding_layers=False
    )
    tensors = read_tensors(content, _as_stored(wanted, found), source=name)
    exact = {key: tensor.to(torch.float32) for key, tensor in tensors.items()}
    insert_into_peft(model, exact, adapter_name=ADAPTER_NAME)
    return model.eval(), source


def _adapted(found: Mapping[str, TensorSpec]) -> list[str]:
    """List the names of the modules that an adapter's tensors belong to, such as `attn.c_attn`."""
    paths = {name.split(".lora_A.")[0] for name in found if ".lora_A." in name}
    return sorted({".".join(path.split(".")[-2:]) for path in paths})


def _as_stored(
    wanted: Mapping[str, torch.Tensor], found: Mapping[str, TensorSpec]
) -> dict[str, TensorSpec]:
    """Ask for the shapes of the model, in whatever float type the file stores them."""
    return {
        name: TensorSpec(
            found[name].dtype if name in found else "F32", tuple(int(size) for size in one.shape)
        )
        for name, one in wanted.items()
    }


def _base_model(
    source: BaseSource, found: Mapping[str, TensorSpec], device: torch.device
) -> PreTrainedModel:
    if HEAD not in found:
        return load_language_model(source, device)
    shape = found[HEAD].shape
    if len(shape) != 2 or not 1 < shape[0] <= _MAX_LABELS:  # noqa: PLR2004 - a matrix
        message = f"The classification head of the adapter has the shape {list(shape)}; it must be (labels, hidden), with at least two labels."
        raise ArtifactError(message)
    return load_base(GPT2ForSequenceClassification, source, device, num_labels=shape[0])
