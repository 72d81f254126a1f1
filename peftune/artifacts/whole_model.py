"""A checkpoint of every weight, loaded from bytes that have been checked."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerBase,
)

from peftune.artifacts.manifest import (
    MODEL_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    Manifest,
)
from peftune.artifacts.opened import Opened
from peftune.artifacts.own_base import base_of
from peftune.artifacts.plain_tokenizer import plain_tokenizer
from peftune.artifacts.tensors import largest_file, read_tensors, specs_of
from peftune.errors import ArtifactError
from peftune.files.strict_json import parse_json
from peftune.models.base import PROBLEM_TYPES, hidden_load_report
from peftune.models.source import steers_loading
from peftune.models.tokenizer import load_tokenizer, tokenizer_sha256

_LARGEST = {"n_embd": 1 << 14, "n_head": 1 << 8, "n_inner": 1 << 16, "n_layer": 128}
"""Beyond any GPT-2. The shell of a model costs memory by the layer, before a weight is read."""


def load_whole_model(
    opened: Opened, *, base: str | None, device: torch.device
) -> tuple[GPT2ForSequenceClassification, PreTrainedTokenizerBase]:
    """Load the classifier and the tokenizer of a whole model.

    Args:
        opened: an artifact of the kind `model`, of a task with a head.
        base: where its base lies; then the tokenizer is the base's own, which must be the same.
        device: where the model lives.

    Raises:
        ArtifactError: a file is not what it must be.
        BaseModelError: a base is given and cannot be found.
    """
    manifest = opened.manifest
    config = _config(opened)
    tokenizer = _tokenizer(opened, base)
    if (
        tokenizer_sha256(tokenizer) != manifest.tokenizer_sha256
        or tokenizer.pad_token_id != manifest.pad_token_id
    ):
        message = f"The tokenizer in '{opened.name}' is not the one that the manifest names. Fetch it again."
        raise ArtifactError(message)
    try:
        with torch.device("meta"):
            shell = GPT2ForSequenceClassification(config)
    except Exception as error:
        message = f"'{opened.name}/{MODEL_CONFIG}' describes no model that transformers can build ({type(error).__name__})."
        raise ArtifactError(message) from error
    specs = specs_of(dict(shell.named_parameters()), dtype=getattr(torch, manifest.dtype))
    source = f"{opened.name}/{opened.weights}"
    contents = opened.contents(limit=largest_file(specs))
    tensors = read_tensors(contents[opened.weights], specs, source=source)
    with hidden_load_report():
        model: GPT2ForSequenceClassification = GPT2ForSequenceClassification.from_pretrained(
            None,
            config=config,
            state_dict={name: tensor.float() for name, tensor in tensors.items()},
            dtype=torch.float32,
            device_map={"": device},
        )
    model.accepts_loss_kwargs = False  # type: ignore[assignment] # as of every classifier
    return model.eval(), tokenizer


def _config(opened: Opened) -> GPT2Config:
    name = f"{opened.name}/{MODEL_CONFIG}"
    values = parse_json(opened.read(MODEL_CONFIG), source=name)
    if not isinstance(values, dict):
        message = f"'{name}' is no JSON object."
        raise ArtifactError(message)
    known = GPT2Config().to_dict()
    for key, value in values.items():
        if steers_loading(key) or key not in known:
            message = f"'{name}' has the key '{key}', which a GPT-2 classifier has not. It is not loaded."
            raise ArtifactError(message)
        most = _LARGEST.get(key)
        if (
            most is not None
            and value is not None
            and not (type(value) is int and 0 < value <= most)
        ):
            message = f"'{name}': {key} must be a whole number from 1 to {most}."
            raise ArtifactError(message)
    _refuse_contradiction(values, opened.manifest, name)
    try:
        return GPT2Config(**{**values, "use_cache": False})
    except Exception as error:
        message = f"'{name}' is no configuration of a GPT-2 ({type(error).__name__})."
        raise ArtifactError(message) from error


def _refuse_contradiction(values: dict[str, Any], manifest: Manifest, name: str) -> None:
    """Refuse a configuration by which plain transformers would say something else than peftune."""
    names = dict(enumerate(manifest.labels))
    expected = {
        "model_type": "gpt2",
        "architectures": ["GPT2ForSequenceClassification"],
        "id2label": {str(index): label for index, label in names.items()},
        "label2id": {label: index for index, label in names.items()},
        "pad_token_id": manifest.pad_token_id,
        "problem_type": PROBLEM_TYPES[manifest.task_name],
    }
    for key, value in expected.items():
        if values.get(key) != value:
            message = f"'{name}' says '{key}' otherwise than the manifest does. Fetch it again."
            raise ArtifactError(message)


def _tokenizer(opened: Opened, base: str | None) -> PreTrainedTokenizerBase:
    if base is not None:
        return load_tokenizer(base_of(opened, base).folder)
    return plain_tokenizer(
        opened.read(TOKENIZER), opened.read(TOKENIZER_CONFIG), source=opened.name
    )
