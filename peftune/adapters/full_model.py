"""Load a checkpoint of full fine-tuning from bytes that were checked: configuration, tokenizer, weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from peftune.adapters.artifact import Opened, base_of
from peftune.adapters.format import MODEL_CONFIG, SMALL_FILE_BYTES, TOKENIZER, TOKENIZER_CONFIG
from peftune.adapters.manifest import Manifest
from peftune.adapters.tensors import largest_file, read_tensors, specs_of
from peftune.errors import ArtifactError
from peftune.files.strict_json import parse_object
from peftune.models.architecture import is_whole_model
from peftune.models.base_contents import LARGEST, steers_loading
from peftune.models.loading import open_model
from peftune.models.tokenizer import load_tokenizer, padded_right, tokenizer_sha256
from peftune.models.tokenizer_files import CLASSES, CONFIG_KEYS, PARTS, is_byte_level

_SPECIAL = ("bos_token", "eos_token", "unk_token")


def plain_tokenizer(
    content: bytes, config: bytes, *, vocab_size: int, source: str
) -> PreTrainedTokenizerBase:
    """Build GPT-2's kind of tokenizer: byte-level BPE, in which no pattern comes from the file.

    Args:
        content: bytes of `tokenizer.json`.
        config: bytes of `tokenizer_config.json`; its special tokens alone are used.
        vocab_size: rows of the model's embedding; no tokenizer has more tokens.
        source: what messages call the folder.

    Raises:
        ArtifactError: it is another kind of tokenizer, or damaged.
    """
    parts = parse_object(content, source=f"{source}/{TOKENIZER}")
    values = parse_object(config, source=f"{source}/{TOKENIZER_CONFIG}")
    if unknown := sorted(set(values) - CONFIG_KEYS):
        message = f"'{source}/{TOKENIZER_CONFIG}' has the key '{unknown[0]}', which a GPT-2 tokenizer has not. It is not loaded."
        raise ArtifactError(message)
    if not (_is_byte_level_bpe(parts, vocab_size) and _reads_the_same(values, parts)):
        message = f"'{source}/{TOKENIZER}' is not a plain byte-level BPE, and other kinds are not built out of an artifact. Pass the base, whose tokenizer is the same: base=… in Python, --base on the command line."
        raise ArtifactError(message)
    special = {key: values[key] for key in _SPECIAL if isinstance(values.get(key), str)}
    try:
        built = Tokenizer.from_str(content.decode())
    except Exception as error:
        message = f"'{source}/{TOKENIZER}' is not a tokenizer that can be built ({type(error).__name__})."
        raise ArtifactError(message) from error
    if (
        any(built.token_to_id(token) is None for token in special.values())
        or "eos_token" not in special
    ):
        message = f"'{source}/{TOKENIZER_CONFIG}' names a special token that the vocabulary has not, or no eos_token."
        raise ArtifactError(message)
    return padded_right(PreTrainedTokenizerFast(tokenizer_object=built, **special))


def _is_byte_level_bpe(parts: Mapping[str, Any], vocab_size: int) -> bool:
    model = parts.get("model")
    return (
        set(parts) <= PARTS
        and parts.get("truncation") is parts.get("padding") is None
        and isinstance(model, dict)
        and model.get("type") == "BPE"
        and not model.get("dropout")  # it would read the same text otherwise each time
        and _is_short(model.get("vocab"), vocab_size)
        and _is_short(model.get("merges"), 2 * vocab_size)
        and _is_short(parts.get("added_tokens"), vocab_size)
        and parts.get("normalizer") is None
        and is_byte_level(parts.get("pre_tokenizer"))
        and is_byte_level(parts.get("decoder"))
        and (is_byte_level(parts.get("post_processor")) or _is_template(parts))
    )


def _is_short(part: object, most: int) -> bool:
    return isinstance(part, (dict, list)) and len(part) <= most


def _reads_the_same(values: Mapping[str, Any], parts: Mapping[str, Any]) -> bool:
    """Say whether plain transformers would make the same of the files, where they say anything."""
    accepted = {
        "backend": ("tokenizers",),
        "tokenizer_class": tuple(CLASSES),
        "padding_side": ("right",),
        "truncation_side": ("right",),
        "pad_token": (values.get("eos_token"),),
        "add_prefix_space": (parts["pre_tokenizer"].get("add_prefix_space", True),),
    }
    return all(values[key] in allowed for key, allowed in accepted.items() if key in values)


def _is_template(parts: Mapping[str, Any]) -> bool:
    """Say whether the post-processor only sets texts side by side, or is not there."""
    part = parts.get("post_processor")
    return part is None or (
        isinstance(part, dict)
        and part.get("type") == "TemplateProcessing"
        and part.get("special_tokens") == {}
    )


_FIELDS = frozenset(
    {"activation_function", "add_cross_attention", "attn_pdrop", "bos_token_id", "embd_pdrop"}
    | {"eos_token_id", "initializer_range", "layer_norm_epsilon", "n_embd", "n_head", "n_inner"}
    | {"n_layer", "n_positions", "reorder_and_upcast_attn", "resid_pdrop"}
    | {"scale_attn_by_inverse_layer_idx", "scale_attn_weights", "summary_activation"}
    | {"summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"}
    | {"tie_word_embeddings", "vocab_size"}
)
"""What a GPT-2 says of itself; transformers checks the types."""

_STATED = frozenset(
    {"architectures", "dtype", "id2label", "label2id", "model_type", "pad_token_id"}
    | {"problem_type", "use_cache"}
)
"""What plain transformers must be told to say the same as peftune."""

_TOKEN_IDS = ("bos_token_id", "eos_token_id")
_SHARES = ("attn_pdrop", "embd_pdrop", "initializer_range", "resid_pdrop", "summary_first_dropout")
_CHOICES: dict[str, tuple[object, ...]] = {
    "summary_type": ("last", "first", "mean", "cls_index", "attn"),
    "summary_activation": (None, "tanh"),
}
"""Of a head that a classifier does not have; transformers takes anything for it."""

_VERSION = "transformers_version"
KNOWN_KEYS = _FIELDS | _STATED | {_VERSION}
"""All that peftune writes."""

_VERSION_FORM = re.compile(r"[0-9A-Za-z.+-]{1,40}\Z")


def model_config(values: Mapping[str, Any], manifest: Manifest, *, source: str) -> GPT2Config:
    """Build the configuration of a whole model out of what somebody else may have written.

    Args:
        values: the parsed file.
        manifest: of the same artifact.
        source: what messages call the artifact.

    Raises:
        ArtifactError: it is not what peftune writes for this artifact.
    """
    name = f"{source}/{MODEL_CONFIG}"
    _refuse_unknown(values, name)
    for key, most in LARGEST.items():
        value = values.get(key)
        if value is not None and not (type(value) is int and 0 < value <= most):
            message = f"'{name}': {key} must be a whole number from 1 to {most}."
            raise ArtifactError(message)
    _refuse_other_values(values, name)
    for key, value in _stated(manifest).items():
        if not _same(values.get(key), value):
            message = f"'{name}' says '{key}' otherwise than the manifest does. Fetch it again."
            raise ArtifactError(message)
    try:
        return GPT2Config(**{**values, "use_cache": False})
    except Exception as error:
        message = f"'{name}' is not a configuration of a GPT-2 ({type(error).__name__})."
        raise ArtifactError(message) from error


def _refuse_unknown(values: Mapping[str, Any], name: str) -> None:
    """Refuse keys beyond the known ones, unless they say what goes without saying."""
    defaults = GPT2Config().to_dict()
    for key, value in values.items():
        if key in _FIELDS or key in _STATED:
            continue
        if key == _VERSION:
            fits = isinstance(value, str) and _VERSION_FORM.match(value) is not None
        else:
            fits = key in defaults and not steers_loading(key) and _same(value, defaults[key])
        if not fits:
            message = f"'{name}' has the key '{key[:80]}', which a GPT-2 classifier has not. It is not loaded."
            raise ArtifactError(message)


def _refuse_other_values(values: Mapping[str, Any], name: str) -> None:
    """Refuse values that change nothing here, and that another reader would trip over."""
    for key, value in sorted(values.items()):
        if wanted := wanted_instead(key, value):
            message = f"'{name}': {key} must be {wanted}."
            raise ArtifactError(message)


def wanted_instead(key: str, value: object) -> str:
    """Say what a key must hold that a classifier never reads; nothing where it does.

    Args:
        key: any key of `config.json`.
        value: what it holds.
    """
    if key in _TOKEN_IDS:
        most = LARGEST["vocab_size"]
        fits = value is None or (type(value) is int and 0 <= value < most)
        return "" if fits else f"null or a whole number from 0 to {most - 1}"
    if key in _SHARES:
        fits = type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]
        return "" if fits else "a number from 0 to 1"
    choices = _CHOICES.get(key, (value,))
    fits = any(_same(value, one) for one in choices)
    return "" if fits else f"one of {', '.join(map(json.dumps, choices))}"


def _stated(manifest: Manifest) -> dict[str, Any]:
    names = dict(enumerate(manifest.labels))
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2ForSequenceClassification"],
        "id2label": {str(index): label for index, label in names.items()},
        "label2id": {label: index for index, label in names.items()},
        "pad_token_id": manifest.pad_token_id,
        "problem_type": manifest.task_type.problem_type,
        # What plain transformers opens it in, whatever type the file stores.
        "dtype": "float32",
        "use_cache": True,
    }


def _same(found: object, expected: object) -> bool:
    """Compare as JSON does: true, 1 and 1.0 are three things."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


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
        parse_object(opened.read(MODEL_CONFIG), source=f"{opened.name}/{MODEL_CONFIG}"),
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
    model = open_model(
        GPT2ForSequenceClassification,
        None,
        device,
        name=opened.name,
        config=config,
        state_dict={name: tensor.float() for name, tensor in tensors.items()},
    )
    model.accepts_loss_kwargs = False  # type: ignore[assignment] # as of every classifier
    _refuse_other_strategy(opened, model)
    model.eval()
    return model, tokenizer


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
            opened.read(TOKENIZER, limit=SMALL_FILE_BYTES + _BYTES_OF_A_TOKEN * vocab_size),
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
