"""What the `config.json` of a base may say: the limits, types and keys of GPT-2, key by key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GPT2Config

from peftune.errors import BaseModelError, printable

LARGEST = {
    "n_embd": 1 << 14,
    "n_head": 1 << 8,
    "n_inner": 1 << 16,
    "n_layer": 128,
    "n_positions": 1 << 20,
    "vocab_size": 1 << 20,
}
"""Beyond any GPT-2. The shell of a model costs memory by the layer, before a weight is read.

GPT-2 XL has 48 layers, 1,600 dimensions, 25 heads, 1,024 positions and 50,257 tokens; the largest
published models of its kind have 44 layers and 6,144 dimensions.
"""

_LARGEST_ID = (1 << 31) - 1
_MOST_LABELS = 100_000
_LONGEST_TEXT = 200
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which values a key may have, and how a message says it."""

    fits: Callable[[Any], bool]
    allowed: str


def _whole(least: int, most: int) -> _Rule:
    return _Rule(
        lambda value: type(value) is int and least <= value <= most,
        f"a whole number from {least} to {most}",
    )


def _number(least: float, most: float) -> _Rule:
    return _Rule(
        lambda value: (
            type(value) in (int, float) and math.isfinite(value) and least <= value <= most
        ),
        f"a number from {least:g} to {most:g}",
    )


def _one_of(*values: str | bool) -> _Rule:
    shown = " or ".join(str(value).lower() for value in values)
    return _Rule(
        lambda value: any(type(value) is type(one) and value == one for one in values), shown
    )


def _or_null(rule: _Rule) -> _Rule:
    return _Rule(lambda value: value is None or rule.fits(value), f"{rule.allowed}, or null")


_SWITCH = _Rule(lambda value: type(value) is bool, "true or false")
_TEXT = _Rule(
    lambda value: isinstance(value, str) and len(value) <= _LONGEST_TEXT,
    f"a text of at most {_LONGEST_TEXT} characters",
)
_TEXTS = _Rule(
    lambda value: isinstance(value, list) and all(map(_TEXT.fits, value)), "a list of names"
)
_MAPPING = _Rule(
    lambda value: isinstance(value, dict) and len(value) <= _MOST_LABELS,
    f"a mapping of at most {_MOST_LABELS} entries",
)
_NOTHING = _Rule(lambda value: not value, "empty, as in GPT-2")
_ID = _or_null(_whole(-1, _LARGEST_ID))
_IDS = _Rule(
    lambda value: _ID.fits(value) or (isinstance(value, list) and all(map(_ID.fits, value))),
    f"{_ID.allowed}",
)

_RULES: dict[str, _Rule] = {
    **{key: _whole(1, most) for key, most in LARGEST.items() if key != "n_inner"},
    "n_inner": _or_null(_whole(1, LARGEST["n_inner"])),
    "n_ctx": _or_null(_whole(1, LARGEST["n_positions"])),
    **dict.fromkeys(
        ("attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout"), _number(0, 1)
    ),
    "layer_norm_epsilon": _number(0, 1),
    "initializer_range": _number(0, 10),
    **dict.fromkeys(
        (
            *("add_cross_attention", "gradient_checkpointing", "output_attentions"),
            *("output_hidden_states", "reorder_and_upcast_attn"),
            *("scale_attn_by_inverse_layer_idx", "scale_attn_weights"),
            *("summary_proj_to_labels", "summary_use_proj", "tie_word_embeddings", "use_cache"),
        ),
        _SWITCH,
    ),
    "activation_function": _TEXT,
    "summary_activation": _or_null(_TEXT),
    "summary_type": _one_of("last", "first", "mean", "cls_index", "attn"),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), _IDS),
    # What every model of transformers may say of itself.
    "architectures": _or_null(_TEXTS),
    **dict.fromkeys(
        (
            *("_commit_hash", "_name_or_path", "dtype", "problem_type", "torch_dtype"),
            "transformers_version",
        ),
        _or_null(_TEXT),
    ),
    "model_type": _TEXT,
    **dict.fromkeys(("id2label", "label2id", "task_specific_params"), _or_null(_MAPPING)),
    # A mapping of so many names would be made up.
    **dict.fromkeys(("_num_labels", "num_labels"), _or_null(_whole(1, _MOST_LABELS))),
    # With another value the model is another one, or returns something else.
    "chunk_size_feed_forward": _whole(0, 0),
    "is_encoder_decoder": _one_of(False),
    "pruned_heads": _NOTHING,
    "return_dict": _one_of(True),
    "torchscript": _one_of(False),
}
"""All keys that GPT-2's own files have, of today and of years ago."""

_STEERING = frozenset(
    {"attn_implementation", "auto_map", "custom_pipelines", "quantization_config"}
    | {"transformers_weights", "tokenizer_class"}
)
_TOKENIZERS = ("GPT2Tokenizer", "GPT2TokenizerFast", None)
_ALIASES: Mapping[str, str] = GPT2Config.attribute_map
"""Other names of GPT-2's keys, which win over its own in transformers, whatever the file's order."""


def steers_loading(key: str) -> bool:
    """Say whether a key of a model's configuration changes what is loaded, instead of what it is."""
    if key in _RULES or key in _ALIASES:
        return False
    return key in _STEERING or key.startswith("_") or key in _OF_THE_CLASS


_OF_THE_CLASS = frozenset(dir(GPT2Config))
"""Names that mean something to transformers beyond a value that is kept: methods, plans of layers."""


def refuse_steering(values: Mapping[str, Any], *, name: str) -> None:
    """Refuse a configuration that makes transformers load something else than its files.

    Raises:
        BaseModelError: naming the key.
    """
    steering = [key for key in values if steers_loading(key)]
    if values.get("tokenizer_class") in _TOKENIZERS:
        steering = [key for key in steering if key != "tokenizer_class"]
    if steering:
        message = f"The config.json of '{name}' has the key '{printable(steering[0])[:_SHOWN]}', which makes transformers load other code or other weights than its files. Remove it, or save the model again with save_pretrained."
        raise BaseModelError(message)


def refuse_values(values: Mapping[str, Any], *, name: str) -> None:
    """Refuse a value that no GPT-2 has, before anything of its size is made.

    Raises:
        BaseModelError: naming the key, the value and what is allowed.
    """
    for key, value in values.items():
        rule = _RULES.get(_ALIASES.get(key, key))
        if rule is not None and not rule.fits(value):
            shown = printable(repr(value))[:_SHOWN]
            message = f"The config.json of '{name}' has {key}: {shown}, which must be {rule.allowed}. Mend it, or save the model again with save_pretrained."
            raise BaseModelError(message)


def refuse_aliases(values: Mapping[str, Any], *, name: str) -> None:
    """Refuse a key of GPT-2 under a second name: a fingerprint covers its own names alone.

    Raises:
        BaseModelError: naming both.
    """
    for alias, own in _ALIASES.items():
        if alias in values and not (own in values and values[alias] == values[own]):
            message = f"The config.json of '{name}' has the key '{alias}', which is another name of '{own}'. Write '{own}' instead, as GPT-2 does."
            raise BaseModelError(message)


def refuse_unknown(values: Mapping[str, Any], *, name: str) -> None:
    """Refuse keys that no GPT-2 has, in a file that nobody vouches for.

    Raises:
        BaseModelError: naming the key.
    """
    defaults = GPT2Config().to_dict()
    for key, value in values.items():
        if key not in _RULES and not (key in defaults and defaults[key] == value):
            message = f"The config.json of '{name}' has the key '{printable(key)[:_SHOWN]}', which a GPT-2 has not. It is not opened, unless you name it as the base yourself."
            raise BaseModelError(message)
