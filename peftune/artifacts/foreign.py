"""PEFT adapters that peftune did not make: read with the same care, but without a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedModel

from peftune.artifacts.manifest import PEFT_CONFIG, WEIGHTS
from peftune.artifacts.tensors import ADAPTER_NAME, parse_tensors
from peftune.errors import ArtifactError
from peftune.models.base import hidden_load_report
from peftune.models.source import BaseSource, find_base

_HEAD = "base_model.model.score.weight"
_MAX_RANK = 1024
_PLAIN_VALUES: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian"),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "megatron_config": (None,),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "target_parameters": (None,),
}


def named_base(folder: Path) -> str:
    """Return the name of the base that an adapter's configuration gives.

    Raises:
        ArtifactError: it gives none.
    """
    name = _read_config(folder).get("base_model_name_or_path")
    if not isinstance(name, str):
        message = f"'{folder}' does not name its base. Pass it: --base on the command line, base=… in Python."
        raise ArtifactError(message)
    return name


def load_foreign_adapter(
    folder: Path, base: str | None, device: torch.device
) -> tuple[PeftModel, BaseSource]:
    """Load a plain PEFT LoRA adapter onto its base.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        base: where the base lies; otherwise the name in the adapter's configuration.
        device: where the model lives.

    Raises:
        ArtifactError: it is no plain LoRA, or its tensors do not fit the base exactly.
        BaseModelError: the base cannot be found.
    """
    values = _read_config(folder)
    source = find_base(base or named_base(folder))
    path = folder / WEIGHTS
    if not path.is_file():
        message = f"'{folder}' holds no {WEIGHTS}; pickled adapters are never opened. Save it again with safetensors."
        raise ArtifactError(message)
    tensors = parse_tensors(path.read_bytes(), source=str(path))
    task_type = TaskType.SEQ_CLS if _HEAD in tensors else TaskType.CAUSAL_LM
    model = get_peft_model(_base_model(source, tensors, device), _lora_config(values, task_type))
    expected = get_peft_model_state_dict(
        model, adapter_name=ADAPTER_NAME, save_embedding_layers=False
    )
    if difference := sorted(set(expected) ^ set(tensors)):
        message = f"'{path}' does not fit '{source.name}': tensor '{difference[0]}' is missing or unexpected ({len(difference)} in all)."
        raise ArtifactError(message)
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape or not bool(torch.isfinite(tensor).all()):
            message = f"'{path}': tensor '{key}' has another shape than '{source.name}' asks for, or values that are not finite."
            raise ArtifactError(message)
    set_peft_model_state_dict(model, tensors, adapter_name=ADAPTER_NAME)
    return model.eval(), source


def is_peft_folder(folder: Path) -> bool:
    """Say whether a folder looks like a PEFT adapter."""
    return (folder / PEFT_CONFIG).is_file()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / PEFT_CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"'{path}' is no valid JSON: {error}."
        raise ArtifactError(message) from error
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        message = (
            f"'{path}' is no LoRA adapter; peftune measures plain LoRA adapters of other tools."
        )
        raise ArtifactError(message)
    for key, allowed in _PLAIN_VALUES.items():
        if key in values and values[key] not in allowed:
            message = f"'{path}': {key} {values[key]!r} is not plain LoRA: it changes the base, treats layers apart, or follows other files. It is not opened."
            raise ArtifactError(message)
    return values


def _lora_config(values: dict[str, Any], task_type: TaskType) -> LoraConfig:
    rank, alpha, targets = values.get("r"), values.get("lora_alpha"), values.get("target_modules")
    plain_names = targets == "all-linear" or (
        isinstance(targets, list)
        and all(
            isinstance(t, str) and t.replace("_", "").replace(".", "").isalnum() for t in targets
        )
    )
    if not (
        isinstance(rank, int)
        and 0 < rank <= _MAX_RANK
        and isinstance(alpha, (int, float))
        and 0 < alpha < float("inf")
        and plain_names
    ):
        message = f"{PEFT_CONFIG}: r must be 1 to {_MAX_RANK}, lora_alpha positive, target_modules a list of module names."
        raise ArtifactError(message)
    return LoraConfig(
        task_type=task_type,
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        use_rslora=bool(values.get("use_rslora")),
        use_dora=bool(values.get("use_dora")),
        fan_in_fan_out=True,
    )


def _base_model(
    source: BaseSource, tensors: dict[str, torch.Tensor], device: torch.device
) -> PreTrainedModel:
    shared: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "dtype": torch.float32,
        "device_map": {"": device},
    }
    with hidden_load_report():
        if _HEAD not in tensors:
            return GPT2LMHeadModel.from_pretrained(source.folder, **shared)
        labels = int(tensors[_HEAD].shape[0])
        return GPT2ForSequenceClassification.from_pretrained(
            source.folder, num_labels=labels, ignore_mismatched_sizes=True, **shared
        )
