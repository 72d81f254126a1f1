"""Load a GPT-2 tokenizer so that padding and stray special tokens cannot shift a result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from peftune.errors import BaseModelError
from peftune.files.remembered import remembered

_FILES = (
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads with the end token, on the right.

    GPT-2 has no pad token, and counts positions from the left edge: left padding would shift every
    position. The end token serves as padding; no text can hold it, since `encode_texts` splits it.

    Raises:
        BaseModelError: the folder holds no usable tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        message = f"'{folder}' holds no usable tokenizer ({type(error).__name__}: {str(error).splitlines()[0]}). Save the base's tokenizer there with save_pretrained."
        raise BaseModelError(message) from error
    if tokenizer.eos_token_id is None:
        message = f"The tokenizer in '{folder}' has no end token, which GPT-2 needs; save the base's own tokenizer there."
        raise BaseModelError(message)
    return padded_right(tokenizer)


def padded_right(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Set a GPT-2 tokenizer, in place, to pad and cut on the right, with the end token."""
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    return tokenizer


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what a tokenizer's vocabulary is, what it merges in which order, and a fixed text's ids.

    The text alone would not do: most merges of a vocabulary do not occur in it.
    """
    digest = hashlib.sha256()
    for token, index in sorted(tokenizer.get_vocab().items()):
        digest.update(f"{index} {token}\n".encode())
    for merge in _merges(tokenizer):
        digest.update(f"{merge}\n".encode())
    sample = "Grüße! It's 1,024 tokens\n\n\tdon't—stop… 日本 🙂 <|endoftext|>"
    digest.update(repr(encode_texts(tokenizer, [sample], max_length=None)).encode())
    digest.update(f"{tokenizer.pad_token_id} {tokenizer.eos_token_id}".encode())
    return digest.hexdigest()


def _merges(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List the merges of a byte-pair encoding in their order, whichever way its library writes them."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return []
    merges = json.loads(backend.to_str())["model"].get("merges", [])
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def remembered_sha256(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """Return `tokenizer_sha256` of the tokenizer that was loaded from a folder, worked out once."""
    files = [folder / name for name in _FILES if (folder / name).is_file()]
    if not files:
        return tokenizer_sha256(tokenizer)
    versions = f"{transformers.__version__} {tokenizers.__version__} merges"
    return remembered(
        "tokenizer-hashes", files, lambda: tokenizer_sha256(tokenizer), facts=versions
    )


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], *, max_length: int | None
) -> list[list[int]]:
    """Turn texts into token ids, without padding.

    Args:
        tokenizer: from `load_tokenizer`.
        texts: any strings; a special token's spelling in them is read as plain characters.
        max_length: tokens kept of each text; None keeps all.

    Returns:
        Token ids of each text; never empty: a text without tokens becomes one end token.
    """
    if not texts:
        return []
    encoded = tokenizer(
        texts,
        truncation=max_length is not None,
        max_length=max_length,
        split_special_tokens=True,
        add_special_tokens=False,
        return_attention_mask=False,
        verbose=False,
    )
    return [list(ids) or [tokenizer.eos_token_id] for ids in encoded["input_ids"]]
