"""Load a GPT-2 tokenizer so that padding and stray special tokens cannot shift a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from peftune.errors import BaseModelError, first_line, out_of_memory
from peftune.files.hash_cache import remembered
from peftune.models.base_files import read_config, rows_of
from peftune.models.tokenizer_files import (
    TOKENIZER,
    VOCABULARY,
    refuse_ids_beyond,
    refuse_other_tokenizer,
)

_FILES = (
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
_VOCABULARIES = (TOKENIZER, VOCABULARY)

_KNOWN_TEXT = "The quick brown fox jumps over the lazy dog, 123 times."
_SAMPLED = 256
_FEWEST_WHOLE = 0.5
"""Share of a vocabulary's words that must be read as the one token that they are; of GPT-2's, 0.99 are."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads with the end token, on the right.

    GPT-2 has no pad token, and counts positions from the left edge: left padding would shift every
    position. The end token serves as padding; no text can hold it, since `encode_texts` splits it.

    Raises:
        BaseModelError: the folder holds no usable tokenizer, or one that is not its embedding's.
    """
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        message = f"'{folder}' holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt. Save the base's tokenizer there with save_pretrained."
        raise BaseModelError(message)
    rows = rows_of(read_config(folder))
    refuse_other_tokenizer(folder, rows=rows)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except BaseException as error:
        # A panic of the tokenizers library is not an Exception.
        if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        message = f"'{folder}' holds no usable tokenizer ({type(error).__name__}: {first_line(error)}). Save the base's tokenizer there with save_pretrained."
        raise (out_of_memory(error) or BaseModelError(message)) from error
    if tokenizer.eos_token_id is None:
        message = f"The tokenizer in '{folder}' has no end token, which GPT-2 needs; save the base's own tokenizer there."
        raise BaseModelError(message)
    refuse_ids_beyond(tokenizer.get_vocab(), rows, folder)
    _refuse_unreadable(padded_right(tokenizer), folder)
    return tokenizer


def _refuse_unreadable(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a tokenizer that makes nothing of a text, or of its own words: its files are incomplete."""
    [ids] = encode_texts(tokenizer, [_KNOWN_TEXT], max_length=None)
    if len(set(ids)) < 2:  # noqa: PLR2004 - one token throughout tells no text from another
        message = f"The tokenizer in '{folder}' reads {_KNOWN_TEXT!r} as {len(ids)} times the token {tokenizer.convert_ids_to_tokens(ids[0])!r}, so its vocabulary is missing or incomplete. Save the base's tokenizer there with save_pretrained."
        raise BaseModelError(message)
    words = _some_words(tokenizer)
    if not words:
        return
    read = encode_texts(tokenizer, words, max_length=None)
    if sum(len(ids) == 1 for ids in read) < _FEWEST_WHOLE * len(words):
        split = next(word for word, ids in zip(words, read, strict=True) if len(ids) > 1)
        message = f"The tokenizer in '{folder}' splits most of its own tokens, such as {split!r}, so its merges are missing or incomplete. Save the base's tokenizer there with save_pretrained."
        raise BaseModelError(message)


def _some_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List words that are tokens of a vocabulary, with a space before them, evenly over its ids."""
    ids = range(0, len(tokenizer), max(1, len(tokenizer) // (4 * _SAMPLED)))
    words = [str(tokenizer.decode([index])) for index in ids]
    return [word for word in words if word[:1] == " " and word[1:].isalpha()][:_SAMPLED]


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
    return _remembered(folder, lambda: tokenizer_sha256(tokenizer))


def sha256_of_folder(folder: Path) -> str:
    """Return `tokenizer_sha256` of the tokenizer in a folder, which is loaded if it has changed.

    Raises:
        BaseModelError: the folder holds no usable tokenizer.
    """
    return _remembered(folder, lambda: tokenizer_sha256(load_tokenizer(folder)))


def _remembered(folder: Path, compute: Callable[[], str]) -> str:
    files = [folder / name for name in _FILES if (folder / name).is_file()]
    if not files:
        return compute()
    versions = f"{transformers.__version__} {tokenizers.__version__} merges"
    return remembered("tokenizer-hashes", files, compute, facts=versions)


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


REFERENCE_TEXTS: tuple[str, ...] = (
    "The soup was cold and nobody said sorry.",
    "train leaves at 7:40 from platform 2",
    "could not stop smiling the whole way home :)",
    "I expected little of it. I was right, sadly, and the tickets were not cheap either.",
    "Is the library open on Monday?",
    "New shoes, first walk, no blisters. That never happens to me.",
    "meh.",
    "They fixed the roof, and now it leaks in two places instead of one. Wonderful.",
    "The committee will meet again in March to vote on the second proposal.",
    "my cat brought me a leaf and sat there so proud",
    "12 eggs, 300 g flour, 1/2 l milk",
    "Three hours on hold; then the line went dead.",
    "Not bad at all, and I say that as someone who hates musicals!",
    "UPDATE: the parcel has been moved to the depot in the next town.",
    "He was late, he was rude, and somehow it was still the best evening of the year.",
    "Grüße aus dem Süden ☀",
)
