"""A checkpoint of every weight, loaded from bytes that have been checked."""

from __future__ import annotations

import torch
from transformers import GPT2ForSequenceClassification, PreTrainedTokenizerBase

from peftune.artifacts.manifest import MODEL_CONFIG, TOKENIZER, TOKENIZER_CONFIG
from peftune.artifacts.model_config import model_config
from peftune.artifacts.opened import Opened
from peftune.artifacts.own_base import base_of
from peftune.artifacts.plain_tokenizer import plain_tokenizer
from peftune.artifacts.tensors import largest_file, read_tensors, specs_of
from peftune.errors import ArtifactError
from peftune.files.strict_json import parse_json
from peftune.models.base import loading
from peftune.models.parts import is_whole_model
from peftune.models.tokenizer import load_tokenizer, tokenizer_sha256

_SMALL = 1 << 20
_BYTES_OF_A_TOKEN = 512
"""Most bytes that a token may take in `tokenizer.json`, with its merge; GPT-2's take 70."""


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
    config = model_config(
        parse_json(opened.read(MODEL_CONFIG), source=f"{opened.name}/{MODEL_CONFIG}"),
        manifest,
        source=opened.name,
    )
    if manifest.max_length > config.n_positions:
        message = f"'{opened.name}' reads {manifest.max_length} tokens of a text, and its model has {config.n_positions} positions. Fetch it again."
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
    tokenizer = _tokenizer(opened, base, vocab_size=config.vocab_size)
    with loading():
        model: GPT2ForSequenceClassification = GPT2ForSequenceClassification.from_pretrained(
            None,
            config=config,
            state_dict={name: tensor.float() for name, tensor in tensors.items()},
            dtype=torch.float32,
            device_map={"": device},
        )
    model.accepts_loss_kwargs = False  # type: ignore[assignment] # as of every classifier
    _refuse_other_strategy(opened, model)
    return model.eval(), tokenizer


def _refuse_other_strategy(opened: Opened, model: GPT2ForSequenceClassification) -> None:
    """Refuse a manifest that gives a checkpoint to a strategy that saves adapters."""
    if not is_whole_model(opened.strategy.prepare(model)):
        message = f"'{opened.name}' says that the strategy '{opened.strategy.name}' made it, which saves an adapter and no whole model. Fetch it again."
        raise ArtifactError(message)


def _tokenizer(opened: Opened, base: str | None, *, vocab_size: int) -> PreTrainedTokenizerBase:
    """Build the artifact's tokenizer, or take its base's, and make sure that it is the one meant."""
    manifest = opened.manifest
    tokenizer = (
        plain_tokenizer(
            opened.read(TOKENIZER, limit=_SMALL + _BYTES_OF_A_TOKEN * vocab_size),
            opened.read(TOKENIZER_CONFIG),
            vocab_size=vocab_size,
            source=opened.name,
        )
        if base is None
        else load_tokenizer(base_of(opened, base).folder)
    )
    if (
        tokenizer_sha256(tokenizer) != manifest.tokenizer_sha256
        or tokenizer.pad_token_id != manifest.pad_token_id
    ):
        message = f"The tokenizer in '{opened.name}' is not the one that the manifest names. Fetch it again."
        raise ArtifactError(message)
    return tokenizer
