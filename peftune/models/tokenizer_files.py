"""The files of a base's tokenizer, read strictly before any library builds something out of them.

GPT-2 has a byte-level BPE. Its pattern is the library's own; patterns and normalizers of a file can
take any time and any memory, so none but those of a closed list is built.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from peftune.errors import ArtifactError, BaseModelError, printable
from peftune.files.reading import read_plain
from peftune.files.strict_json import parse_object

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARY = "vocab.json"
MERGES = "merges.txt"
_SMALL_FILES = ("added_tokens.json", "special_tokens_map.json", TOKENIZER_CONFIG)
_TEMPLATE = "chat_template.jinja"
_TEMPLATES = "additional_chat_templates"

SMALL_BYTES = 1 << 20
_BYTES_OF_A_TOKEN = 512
"""Most bytes that a token may take in a file, with its merge; GPT-2's take 70."""
_LARGEST = 32 << 20
_LONGEST_TOKEN = 1000
_LONGEST_TEMPLATE = 16
_MOST_PARTS = 8
_FARTHEST = 1 << 31
_SHOWN = 80

CONFIG_KEYS = frozenset(
    {
        "add_bos_token",
        "add_prefix_space",
        "backend",
        "bos_token",
        "clean_up_tokenization_spaces",
        "eos_token",
        "errors",
        "is_local",
        "local_files_only",
        "max_length",
        "model_max_length",
        "pad_to_multiple_of",
        "pad_token",
        "pad_token_type_id",
        "padding_side",
        "stride",
        "tokenizer_class",
        "truncation_side",
        "truncation_strategy",
        "unk_token",
    }
)
"""All that `tokenizer_config.json` may say where nobody vouches for it."""

CLASSES = frozenset(
    {"GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"}
)
_STEERING = frozenset(
    {"auto_map", "backend_tokenizer", "fast_tokenizer_files", "fix_mistral_regex", "gguf_file"}
    | {"init_inputs", "merges", "post_processor", "tokenizer_object", "tokenizer_padding"}
    | {"tokenizer_truncation", "trust_remote_code", "vocab"}
)
_HARMLESS = frozenset({"_commit_hash", "_from_auto", "_name_or_path"})

PARTS = frozenset(
    {
        "added_tokens",
        "decoder",
        "model",
        "normalizer",
        "padding",
        "post_processor",
        "pre_tokenizer",
        "truncation",
        "version",
    }
)
_BYTE_LEVEL = frozenset({"type", "add_prefix_space", "trim_offsets", "use_regex"})
_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase"})
"""What a text grows by under them is bounded, and none has a pattern."""
_BPE_SWITCHES = frozenset({"fuse_unk", "byte_fallback", "ignore_merges"})
_BPE = _BPE_SWITCHES | {
    *("type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
    *("vocab", "merges"),
}
_ADDED_SWITCHES = frozenset({"single_word", "lstrip", "rstrip", "normalized", "special"})

_ADVICE = "Save the base's own tokenizer there with save_pretrained."

_sound: set[tuple[object, ...]] = set()


def refuse_other_tokenizer(folder: Path, *, rows: int, closed: bool = False) -> None:
    """Refuse files out of which something else than GPT-2's kind of tokenizer would be built.

    Args:
        folder: a model folder.
        rows: rows of its embedding; no tokenizer has more tokens.
        closed: refuse settings that peftune does not know, where nobody vouches for the files.

    Raises:
        BaseModelError: naming the file, and what in it.
    """
    seen = (closed, rows, *_stamps(folder))
    if seen in _sound:
        return
    try:
        for name in _SMALL_FILES:
            values = _read_object(folder / name, limit=SMALL_BYTES)
            _refuse_settings(values, folder / name, closed=closed)
        templates = folder / _TEMPLATES
        for path in (folder / _TEMPLATE, *(templates.iterdir() if templates.is_dir() else ())):
            _read(path, limit=SMALL_BYTES)
        limit = min(2 * SMALL_BYTES + _BYTES_OF_A_TOKEN * rows, _LARGEST)
        parts = _read_object(folder / TOKENIZER, limit=limit)
        if parts:
            _refuse_parts(parts, folder / TOKENIZER)
            refuse_ids_beyond(_ids_of(parts), rows, folder)
        vocabulary = _read_object(folder / VOCABULARY, limit=limit)
        _refuse_vocabulary(vocabulary, folder / VOCABULARY)
        if not parts:
            refuse_ids_beyond(vocabulary, rows, folder)
        _refuse_merges(_read(folder / MERGES, limit=limit), folder / MERGES)
    except (ArtifactError, OSError) as error:
        message = f"{error} {_ADVICE}"
        raise BaseModelError(message) from error
    _sound.add(seen)


def _stamps(folder: Path) -> Iterator[object]:
    """Tell a file from any other, and from itself after a change."""
    for name in (*_SMALL_FILES, _TEMPLATE, _TEMPLATES, TOKENIZER, VOCABULARY, MERGES):
        path = folder / name
        facts = path.stat() if path.exists() else None
        yield str(path)
        yield facts and (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _read(path: Path, *, limit: int) -> bytes:
    return read_plain(path, limit=limit, follow=True) if path.exists() else b""


def _read_object(path: Path, *, limit: int) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    return parse_object(_read(path, limit=limit), source=str(path))


def refuse_ids_beyond(ids: Mapping[str, int], rows: int, folder: Path) -> None:
    """Refuse a token that the embedding has no row for; more rows than tokens are harmless padding.

    Raises:
        BaseModelError: naming the first such token.
    """
    beyond = sorted((index, token) for token, index in ids.items() if not 0 <= index < rows)
    if beyond:
        index, token = beyond[0]
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        message = f"The tokenizer in '{folder}' has the token {token[:_SHOWN]!r} with id {index}{more}, and the base's embedding has {rows} rows, for ids 0 to {rows - 1}. If tokens were added, call model.resize_token_embeddings(len(tokenizer)) and save the model again; otherwise save the base's own tokenizer there."
        raise BaseModelError(message)


def _ids_of(parts: Mapping[str, Any]) -> dict[str, int]:
    added = {one["content"]: one["id"] for one in parts.get("added_tokens") or []}
    return {**parts["model"]["vocab"], **added}


# Settings


def _refuse_settings(values: Mapping[str, Any], path: Path, *, closed: bool) -> None:
    """Refuse settings that lead to other classes, other files or other parts of a tokenizer."""
    for key, value in values.items():
        hidden = key.startswith("_") and key not in _HARMLESS
        other = key == "tokenizer_class" and not (value is None or value in _strings(CLASSES))
        if path.name == TOKENIZER_CONFIG and (key in _STEERING or hidden or other):
            message = f"'{path}' has {key}: {_shown(value)}, which makes transformers build another tokenizer than GPT-2's. Remove it."
            raise ArtifactError(message)
        if closed and path.name == TOKENIZER_CONFIG and key not in CONFIG_KEYS:
            message = f"'{path}' has the key '{printable(key)[:_SHOWN]}', which a GPT-2 tokenizer has not."
            raise ArtifactError(message)
        if path.name == "added_tokens.json" and not (type(value) is int and _is_token(key)):
            message = f"'{path}' gives the token {_shown(key)} the id {_shown(value)}, and an id is a whole number."
            raise ArtifactError(message)
        named = key.endswith("_token") and key not in ("add_bos_token", "add_eos_token")
        if named and not (value is None or _is_token(value) or _is_added(value)):
            message = f"'{path}' has {key}: {_shown(value)}, which is not a token of at most {_LONGEST_TOKEN} characters."
            raise ArtifactError(message)


def _strings(known: Collection[str]) -> tuple[str, ...]:
    """List names, to look a value up that may be anything, also what has no hash."""
    return tuple(known)


def _shown(value: object) -> str:
    return printable(repr(value))[:_SHOWN]


def _is_token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TOKEN


def _is_added(value: object) -> bool:
    """Say whether a value is a token with its flags."""
    return (
        isinstance(value, dict)
        and set(value) <= {*_ADDED_SWITCHES, "content", "id", "__type"}
        and _is_token(value.get("content"))
        and all(type(value[key]) is bool for key in _ADDED_SWITCHES & set(value))
        and type(value.get("id", 0)) is int
    )


# tokenizer.json


def _refuse_parts(parts: Mapping[str, Any], path: Path) -> None:
    """Refuse a tokenizer of another kind, by the first of its parts that differs."""
    checks: dict[str, Callable[[Any], bool]] = {
        "normalizer": lambda part: part is None or _is_normalizer(part),
        "pre_tokenizer": _is_pre_tokenizer,
        "decoder": lambda part: part is None or is_byte_level(part),
        "post_processor": _is_post_processor,
        "truncation": _is_limits,
        "padding": _is_limits,
        "added_tokens": lambda part: part is None or _are_added(part),
        "model": _is_bpe,
    }
    for name, fits in checks.items():
        if not fits(parts.get(name)):
            found = parts.get(name)
            kind = found.get("type", "unlike GPT-2's") if isinstance(found, dict) else found
            message = f"'{path}' is not a byte-level BPE such as GPT-2's: its {name} is {_shown(kind)}, or has fields that GPT-2's has not. No pattern, normalizer or model of another kind is built out of a file."
            raise ArtifactError(message)
    if unknown := sorted(set(parts) - PARTS):
        message = f"'{path}' has the part {_shown(unknown[0])}, which a tokenizer has not."
        raise ArtifactError(message)
    _refuse_vocabulary(parts["model"]["vocab"], path)


def _is_normalizer(part: object) -> bool:
    steps = _steps(part, "normalizers")
    return all(set(one) == {"type"} and one["type"] in _strings(_NORMALIZERS) for one in steps)


def _is_pre_tokenizer(part: object) -> bool:
    steps = list(_steps(part, "pretokenizers"))
    return any(map(is_byte_level, steps)) and all(
        is_byte_level(one)
        or (one.get("type") == "Digits" and _is_flagged(one, "individual_digits"))
        for one in steps
    )


def _is_post_processor(part: object) -> bool:
    return part is None or all(
        is_byte_level(one) or _is_template(one) for one in _steps(part, "processors")
    )


def _steps(part: object, key: str) -> list[dict[str, Any]]:
    """List the steps of a sequence, or the one step that a part is; something unfit for any other."""
    steps = [part]
    if isinstance(part, dict) and part.get("type") == "Sequence" and set(part) == {"type", key}:
        steps = part[key] if isinstance(part[key], list) else [None]
    if len(steps) > _MOST_PARTS or not all(
        isinstance(one, dict) and "type" in one for one in steps
    ):
        return [{"type": None, "unfit": True}]
    return [one for one in steps if isinstance(one, dict)]


def is_byte_level(part: object) -> bool:
    """Say whether a part of a tokenizer is GPT-2's own, whose pattern is the library's."""
    return (
        isinstance(part, dict)
        and part.get("type") == "ByteLevel"
        and set(part) <= _BYTE_LEVEL
        and all(type(part[key]) is bool for key in set(part) - {"type"})
    )


def _is_flagged(part: Mapping[str, Any], flag: str) -> bool:
    return set(part) <= {"type", flag} and type(part.get(flag, False)) is bool


def _is_template(part: Mapping[str, Any]) -> bool:
    """Say whether a post-processor sets a few tokens beside a text, and nothing else."""
    special = part.get("special_tokens")
    return (
        part.get("type") == "TemplateProcessing"
        and set(part) <= {"type", "single", "pair", "special_tokens"}
        and all(_is_short(part.get(key), _LONGEST_TEMPLATE) for key in ("single", "pair"))
        and isinstance(special, dict)
        and len(special) <= _LONGEST_TEMPLATE
        and all(
            isinstance(one, dict)
            and all(_is_short(one.get(key), _LONGEST_TEMPLATE) for key in ("ids", "tokens"))
            for one in special.values()
        )
    )


def _is_short(part: object, most: int) -> bool:
    return isinstance(part, list) and len(part) <= most


def _is_limits(part: object) -> bool:
    """Say whether a part is what a tokenizer was last asked for; it is asked anew each time."""
    if part is None:
        return True
    if not isinstance(part, dict):
        return False
    strategy = part.get("strategy")
    numbers = [value for value in part.values() if type(value) in (int, float)]
    if isinstance(strategy, dict):
        numbers += [*strategy.values()]
    return all(type(one) is int and 0 <= one < _FARTHEST for one in numbers)


def _are_added(part: object) -> bool:
    return isinstance(part, list) and all(
        _is_added(one) and "id" in one and one["id"] >= 0 for one in part
    )


def _is_bpe(part: object) -> bool:
    """Say whether a model is a BPE that reads a text the same way each time."""
    return (
        isinstance(part, dict)
        and set(part) <= _BPE
        and part.get("type", "BPE") == "BPE"
        and not part.get("dropout")  # it would read the same text otherwise each time
        and (part.get("unk_token") in (None, "") or _is_token(part["unk_token"]))
        and part.get("continuing_subword_prefix") in (None, "")
        and part.get("end_of_word_suffix") in (None, "")
        and all(type(part[key]) is bool for key in _BPE_SWITCHES & set(part))
        and isinstance(part.get("vocab"), dict)
        and isinstance(part.get("merges"), list)
        and all(map(_is_merge, part["merges"]))
    )


def _is_merge(one: object) -> bool:
    pieces = one.split(" ") if isinstance(one, str) else one
    return (
        isinstance(pieces, list)
        and len(pieces) == 2  # noqa: PLR2004 - what is joined
        and all(map(_is_token, pieces))
    )


# vocab.json and merges.txt


def _refuse_vocabulary(vocabulary: Mapping[str, Any], path: Path) -> None:
    """Refuse ids that are not numbers, or that two tokens share."""
    tokens: dict[int, str] = {}
    for token, index in vocabulary.items():
        if type(index) is not int or index < 0 or len(token) > _LONGEST_TOKEN:
            message = f"'{path}' gives the token {_shown(token)} the id {_shown(index)}; an id is a whole number from 0, and a token has at most {_LONGEST_TOKEN} characters."
            raise ArtifactError(message)
        if index in tokens:
            message = f"'{path}' gives the tokens {_shown(tokens[index])} and {_shown(token)} the same id {index}."
            raise ArtifactError(message)
        tokens[index] = token


def _refuse_merges(content: bytes, path: Path) -> None:
    """Refuse a line that does not join two tokens."""
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        message = f"'{path}' is not UTF-8 at byte {error.start}."
        raise ArtifactError(message) from error
    for number, line in enumerate(lines, start=1):
        text = line.removesuffix("\r")
        if text and not (number == 1 and text.startswith("#version")) and not _is_merge(text):
            message = f"'{path}' has {_shown(text)} in line {number}, and a line joins two tokens."
            raise ArtifactError(message)
