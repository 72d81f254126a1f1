"""PEFT adapters that peftune did not make: read with the same care, but without a manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from peft import set_peft_model_state_dict as insert_into_peft
from transformers import GPT2ForSequenceClassification, PreTrainedModel

from peftune.artifacts.classifier import Classifier
from peftune.artifacts.foreign_config import lora_config, named_base, read_peft_config
from peftune.artifacts.manifest import PEFT_CONFIG, WEIGHTS
from peftune.artifacts.opened import written_by_trainer
from peftune.artifacts.own_base import base_named_inside, largest_adapter
from peftune.artifacts.tensors import ADAPTER_NAME, read_tensors
from peftune.errors import ArtifactError, UsageError, first_line
from peftune.files.folder import SharedFolder, local_folder
from peftune.files.tensor_header import TensorSpec, read_header
from peftune.models.base import load_weights
from peftune.models.fingerprint import base_fingerprint
from peftune.models.language import language_model
from peftune.models.parts import label_count
from peftune.models.source import BaseSource, find_base
from peftune.models.tokenizer import load_tokenizer

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


def load_foreign_classifier(
    folder: SharedFolder, *, base: str | None, labels: Sequence[str] | None, device: torch.device
) -> Classifier:
    """Load a plain PEFT LoRA classifier, of which somebody else knows the base and the labels.

    Args:
        folder: its files.
        base: where the base lies.
        labels: label names in the order of their ids.
        device: where the model lives.

    Raises:
        ArtifactError: it is no plain LoRA classifier, or its tensors do not fit the base exactly.
        BaseModelError: the base cannot be found.
        UsageError: base or labels are missing, or there are more or fewer than the head has.
    """
    if base is None or labels is None:
        message = f"'{folder.name}' carries no manifest, so it does not say to which base and labels it belongs. Pass both: base=… and labels=[…]."
        if wrote := written_by_trainer(folder):
            message = f"{message} {wrote}"
        raise UsageError(message)
    model, source = load_foreign_adapter(folder, base, device)
    inner = model.get_base_model()
    if not isinstance(inner, GPT2ForSequenceClassification):
        message = f"'{folder.name}' is no classifier: it has no classification head."
        raise ArtifactError(message)
    count = label_count(model)
    if len(labels) != count:
        message = f"'{folder.name}' tells {count} labels apart; {len(labels)} are given."
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


def load_foreign_adapter(
    folder: SharedFolder | Path, base: str | None, device: torch.device
) -> tuple[PeftModel, BaseSource]:
    """Load a plain PEFT LoRA adapter onto its base.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        base: where the base lies; otherwise a base of the name in the adapter's configuration, if
            it is on this machine.
        device: where the model lives.

    Raises:
        ArtifactError: it is no plain LoRA, or its tensors do not fit the base exactly.
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
        return language_model(source, device)
    shape = found[HEAD].shape
    if len(shape) != 2 or not 1 < shape[0] <= _MAX_LABELS:  # noqa: PLR2004 - a matrix
        message = f"The classification head of the adapter has the shape {list(shape)}; it must be (labels, hidden), with at least two labels."
        raise ArtifactError(message)
    base_fingerprint(source.folder)  # which refuses weights that are no numbers
    return load_weights(GPT2ForSequenceClassification, source, device, num_labels=shape[0])
