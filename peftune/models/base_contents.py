"""Check the configuration and the tensors of a base, key by key, before anything of its size is made."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import GPT2Config, GPT2Model

from peftune.errors import ArtifactError, BaseModelError, printable
from peftune.files.safetensors_header import read_header_of

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


LANGUAGE_MODEL_HEAD = "lm_head.weight"
CLASSIFICATION_HEAD = "score.weight"

LARGEST_WEIGHT = 1e6
"""No trained GPT-2 comes near it: its weights stay below 100, and float16 ends at 65,504."""

_PREFIX = f"{GPT2Model.base_model_prefix}."
_BUFFER = re.compile(r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)\Z")
"""Causal masks, which GPT-2's own files hold as tensors, and which transformers makes itself."""

_USUAL = 1024
"""Positions that GPT-2 has; a base that was cut to fewer keeps its masks."""

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_MEND = "Mend config.json if it is the one that is wrong, or save the whole model again with save_pretrained."


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, as its header describes it.

    Args:
        path: the safetensors file.
        key: its name there.
        shape: its sizes.
        kind: safetensors' name of the element type, such as `F32`.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    kind: str

    def read(self) -> torch.Tensor:
        """Return it in the type that the file stores."""
        with safe_open(self.path, framework="pt") as file:
            found: torch.Tensor = file.get_tensor(self.key)
        return found


def stored_tensors(files: Sequence[Path], *, name: str) -> dict[str, StoredTensor]:
    """List the tensors of a checkpoint by GPT-2's own names; checkpoints differ in the prefix.

    Args:
        files: its safetensors files.
        name: what messages call the base.

    Raises:
        BaseModelError: a file is damaged, or two tensors are the same weight.
    """
    found: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in _listed(path, name):
            own = tensor.key.removeprefix(_PREFIX)
            if own in found:
                message = f"The base '{name}' holds the weight '{own}' twice: as '{found[own].key}' in {found[own].path.name} and as '{tensor.key}' in {path.name}. Save it again with save_pretrained."
                raise BaseModelError(message)
            found[own] = tensor
    return found


def _listed(path: Path, name: str) -> list[StoredTensor]:
    try:
        header = read_header_of(path, source=path.name, follow=True)
    except ArtifactError as error:
        message = f"The weights of the base '{name}' cannot be read: {error} They are damaged or cut short: fetch or save them again."
        raise BaseModelError(message) from error
    return [StoredTensor(path, key, one.shape, one.dtype) for key, one in sorted(header.items())]


def refuse_other_tensors(values: Mapping[str, Any], files: Sequence[Path], *, name: str) -> None:
    """Refuse a checkpoint whose tensors are not those of its configuration.

    transformers makes a missing tensor up and leaves an unexpected one out, and says so in a
    warning. Only a classification head may be there or not, of any shape: it is new in every run.

    Args:
        values: the base's `config.json`.
        files: its safetensors files.
        name: what messages call the base.

    Raises:
        BaseModelError: a tensor is missing, unexpected, of another shape or of no float type.
    """
    stored = stored_tensors(files, name=name)
    shapes = expected_shapes(values, name)
    heads = {LANGUAGE_MODEL_HEAD: shapes["wte.weight"]} if LANGUAGE_MODEL_HEAD in stored else {}
    expected = {**shapes, **heads}
    if missing := [key for key in expected if key not in stored]:
        message = f"The base '{name}' lacks the tensor '{missing[0]}'{_more(missing)}, which its config.json asks for. {_MEND}"
        raise BaseModelError(message)
    others = [
        key for key, one in stored.items() if not (key in expected or _has_place(one, key, shapes))
    ]
    if others:
        message = f"The base '{name}' holds the tensor '{stored[others[0]].key}'{_more(others)}, for which its config.json has no place. {_MEND}"
        raise BaseModelError(message)
    for key, shape in expected.items():
        tensor = stored[key]
        if tensor.shape != shape:
            message = f"The base '{name}' holds the tensor '{tensor.key}' of shape {list(tensor.shape)}, and its config.json asks for {list(shape)}. {_MEND}"
            raise BaseModelError(message)
        if tensor.kind not in _FLOATS:
            message = f"The base '{name}' holds the tensor '{tensor.key}' as {tensor.kind}; peftune reads {', '.join(sorted(_FLOATS))}. Save the model unquantized."
            raise BaseModelError(message)
    if values.get("tie_word_embeddings") is False and not heads:
        message = f"The config.json of '{name}' says 'tie_word_embeddings: false', and its files hold no {LANGUAGE_MODEL_HEAD}: transformers would make up a random language-model head. Remove the key if the head is the embedding, as in GPT-2, or add the head."
        raise BaseModelError(message)


def refuse_own_head(stored: Mapping[str, StoredTensor], *, name: str) -> None:
    """Refuse a language-model head that is not the embedding: forgetting is measured with the embedding.

    Raises:
        BaseModelError: the files hold such a head.
    """
    if LANGUAGE_MODEL_HEAD not in stored:
        return
    head, embedding = stored[LANGUAGE_MODEL_HEAD].read(), stored["wte.weight"].read()
    if not torch.equal(head, embedding.to(head.dtype)):
        message = f"The base '{name}' has a language-model head '{stored[LANGUAGE_MODEL_HEAD].key}' that differs from its embedding '{stored['wte.weight'].key}'. peftune measures forgetting with the tied head of GPT-2; use a base whose head is tied."
        raise BaseModelError(message)


def refuse_made_up(report: Mapping[str, Any], *, name: str) -> None:
    """Refuse a loaded base in which transformers made a tensor up or left one out.

    `refuse_other_tensors` has looked at the files before; this looks at what became of them.

    Args:
        report: what `from_pretrained` gives with `output_loading_info`.
        name: what messages call the base.

    Raises:
        BaseModelError: naming the tensor.
    """
    mismatched = {key for key, *_ in report["mismatched_keys"]}
    made_up = sorted({*report["missing_keys"], *mismatched} - {CLASSIFICATION_HEAD})
    left_out = {key.removeprefix(_PREFIX) for key in report["unexpected_keys"]}
    others = made_up or sorted(
        key for key in left_out if not (_is_replaced(key) or key == LANGUAGE_MODEL_HEAD)
    )
    if others:
        fault = "made up" if made_up else "left out"
        message = f"The base '{name}' cannot be loaded as it is: transformers {fault} the tensor '{others[0]}'{_more(others)}. {_MEND}"
        raise BaseModelError(message)


def refuse_unsound(tensor: torch.Tensor, key: str, *, name: str) -> None:
    """Refuse a weight with which no forward pass means anything.

    Args:
        tensor: the weight.
        key: what it is called.
        name: what messages call the base.

    Raises:
        BaseModelError: it holds NaN, infinity, or a number beyond any trained model's.
    """
    if not tensor.numel():
        return
    least, most = (float(bound) for bound in tensor.aminmax())
    if least >= -LARGEST_WEIGHT and most <= LARGEST_WEIGHT:
        return
    worst = next(one for one in (least, most) if not -LARGEST_WEIGHT <= one <= LARGEST_WEIGHT)
    fault = f"{worst:g}" if tensor.isfinite().all() else "values that are not finite (NaN or inf)"
    message = f"The base '{name}' holds {fault} in the tensor '{key}', where a trained GPT-2 stays below 100. The file is damaged, or its training diverged: fetch it again or use another base."
    raise BaseModelError(message)


def expected_shapes(values: Mapping[str, Any], name: str) -> dict[str, tuple[int, ...]]:
    """Ask transformers which weights a configuration has, without making any of them.

    Args:
        values: a base's `config.json`.
        name: what messages call the base.

    Returns:
        The shape of each weight by its own name.

    Raises:
        BaseModelError: it makes no GPT-2.
    """
    try:
        return dict(_shapes(json.dumps(values, sort_keys=True)))
    except Exception as error:
        message = f"The config.json of '{name}' makes no GPT-2: {' '.join(str(error).split())[:300].rstrip('.')}. {_MEND}"
        raise BaseModelError(message) from error


@functools.lru_cache(maxsize=16)
def _shapes(config: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Build a model without memory, which still takes a tenth of a second for GPT-2, once."""
    with torch.device("meta"):
        backbone = GPT2Model(GPT2Config.from_dict(json.loads(config)))
    return tuple((key, tuple(weight.shape)) for key, weight in backbone.named_parameters())


def _is_replaced(key: str) -> bool:
    return key == CLASSIFICATION_HEAD or _BUFFER.match(key) is not None


def _has_place(tensor: StoredTensor, key: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Say whether a tensor that is not read may be there: a mask or a head, and no larger than one."""
    (positions, width), size = shapes["wpe.weight"], math.prod(tensor.shape)
    most = _MOST_LABELS * width if key == CLASSIFICATION_HEAD else max(positions, _USUAL) ** 2
    return _is_replaced(key) and size <= most


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
