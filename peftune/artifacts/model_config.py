"""`config.json` of a whole model: a GPT-2 classifier's, and nothing that steers what is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from transformers import GPT2Config

from peftune.artifacts.manifest import MODEL_CONFIG, Manifest
from peftune.errors import ArtifactError
from peftune.models.base import PROBLEM_TYPES
from peftune.models.base_config import LARGEST, steers_loading

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


def model_config(values: object, manifest: Manifest, *, source: str) -> GPT2Config:
    """Build the configuration of a whole model out of what somebody else may have written.

    Args:
        values: the parsed file.
        manifest: of the same artifact.
        source: what messages call the artifact.

    Raises:
        ArtifactError: it is not what peftune writes for this artifact.
    """
    name = f"{source}/{MODEL_CONFIG}"
    if not isinstance(values, dict):
        message = f"'{name}' is no JSON object."
        raise ArtifactError(message)
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
        message = f"'{name}' is no configuration of a GPT-2 ({type(error).__name__})."
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
        "problem_type": PROBLEM_TYPES[manifest.task_name],
        # What plain transformers opens it in, whatever type the file stores.
        "dtype": "float32",
        "use_cache": True,
    }


def _same(found: object, expected: object) -> bool:
    """Compare as JSON does: true, 1 and 1.0 are three things."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
