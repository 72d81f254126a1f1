"""A byte-level BPE tokenizer out of files that somebody else may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from peftune.artifacts.manifest import TOKENIZER, TOKENIZER_CONFIG
from peftune.errors import ArtifactError
from peftune.files.strict_json import parse_json
from peftune.models.tokenizer import padded_right
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
    parts = _object(parse_json(content, source=f"{source}/{TOKENIZER}"), source, TOKENIZER)
    values = _object(
        parse_json(config, source=f"{source}/{TOKENIZER_CONFIG}"), source, TOKENIZER_CONFIG
    )
    if unknown := sorted(set(values) - CONFIG_KEYS):
        message = f"'{source}/{TOKENIZER_CONFIG}' has the key '{unknown[0]}', which a GPT-2 tokenizer has not. It is not loaded."
        raise ArtifactError(message)
    if not (_is_byte_level_bpe(parts, vocab_size) and _reads_the_same(values, parts)):
        message = f"'{source}/{TOKENIZER}' is no plain byte-level BPE, and other kinds are not built out of an artifact. Pass the base, whose tokenizer is the same: base=… in Python, --base on the command line."
        raise ArtifactError(message)
    special = {key: values[key] for key in _SPECIAL if isinstance(values.get(key), str)}
    try:
        built = Tokenizer.from_str(content.decode())
    except Exception as error:
        message = (
            f"'{source}/{TOKENIZER}' is no tokenizer that can be built ({type(error).__name__})."
        )
        raise ArtifactError(message) from error
    if (
        any(built.token_to_id(token) is None for token in special.values())
        or "eos_token" not in special
    ):
        message = f"'{source}/{TOKENIZER_CONFIG}' names a special token that the vocabulary has not, or no eos_token."
        raise ArtifactError(message)
    return padded_right(PreTrainedTokenizerFast(tokenizer_object=built, **special))


def _object(values: Any, source: str, name: str) -> Mapping[str, Any]:  # noqa: ANN401 - any JSON
    if not isinstance(values, dict):
        message = f"'{source}/{name}' is no JSON object."
        raise ArtifactError(message)
    return values


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
    said = {
        "backend": ("tokenizers",),
        "tokenizer_class": tuple(CLASSES),
        "padding_side": ("right",),
        "truncation_side": ("right",),
        "pad_token": (values.get("eos_token"),),
        "add_prefix_space": (parts["pre_tokenizer"].get("add_prefix_space", True),),
    }
    return all(values[key] in allowed for key, allowed in said.items() if key in values)


def _is_template(parts: Mapping[str, Any]) -> bool:
    """Say whether the post-processor only sets texts side by side, or is not there."""
    part = parts.get("post_processor")
    return part is None or (
        isinstance(part, dict)
        and part.get("type") == "TemplateProcessing"
        and part.get("special_tokens") == {}
    )
