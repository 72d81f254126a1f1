"""JSON without what Python's reader lets through: doubled keys, NaN, endless digits, hidden text."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

from peftune.errors import ArtifactError

_MAX_DIGITS = 40
"""Transformers writes a length without limit as 10^30."""

_MAX_DEPTH = 32
_LAYOUT = "\n\t"
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def parse_json(content: bytes, *, source: str) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON that somebody else may have written.

    Refuses what is not UTF-8, doubled keys, numbers that are not finite or have more digits than
    any number that is meant, and strings that would steer a terminal.

    Args:
        content: the bytes, whose number the caller has limited.
        source: what messages call it.

    Raises:
        ArtifactError: it is not such JSON.
    """
    try:
        values = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_whole_number,
            parse_float=_number,
        )
        for text in _strings(values):
            refuse_hidden(text)
    except UnicodeDecodeError as error:
        message = f"'{source}' is not UTF-8 at byte {error.start}."
        raise ArtifactError(message) from error
    except RecursionError as error:
        message = f"'{source}' is not valid JSON: it is nested too deeply."
        raise ArtifactError(message) from error
    except ValueError as error:
        message = f"'{source}' is not valid JSON: {error}."
        raise ArtifactError(message) from error
    return values


def parse_object(content: bytes, *, source: str) -> dict[str, Any]:
    """Parse a JSON object, as strictly as `parse_json`.

    Raises:
        ArtifactError: it is not such JSON, or not an object.
    """
    values = parse_json(content, source=source)
    if not isinstance(values, dict):
        message = f"'{source}' is not a JSON object."
        raise ArtifactError(message)
    return values


def refuse_hidden(text: str, *, layout: str = _LAYOUT) -> None:
    """Refuse a string with characters that act on a terminal instead of being seen.

    Args:
        text: any string.
        layout: control characters that it may have.

    Raises:
        ValueError: it has one, a lone surrogate, or one that turns the direction of writing.
    """
    if text.isascii() and text.isprintable():
        return
    for character in text:
        hidden = character in _DIRECTION or unicodedata.category(character) in _HIDDEN_CATEGORIES
        if hidden and character not in layout:
            message = f"a string holds the hidden character U+{ord(character):04X}"
            raise ValueError(message)


def _strings(values: object) -> Iterator[str]:
    waiting = [(values, 0)]
    while waiting:
        value, depth = waiting.pop()
        _refuse_depth(depth)
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [(one, depth + 1) for one in (*value, *value.values())]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]


def _refuse_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        message = f"it is nested more than {_MAX_DEPTH} deep"
        raise ValueError(message)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        doubled = next(key for key, count in counts.items() if count > 1)
        message = f"the key '{doubled[:80]}' stands twice"
        raise ValueError(message)
    return values


def _refuse_constant(name: str) -> float:
    message = f"{name} is not a JSON number"
    raise ValueError(message)


def _whole_number(digits: str) -> int:
    if digits == "-0":  # which Python takes for 0, and others for a float
        message = "-0 is not a whole number"
        raise ValueError(message)
    if len(digits) > _MAX_DIGITS:
        message = f"a number has {len(digits)} digits"
        raise ValueError(message)
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        message = f"{digits[:80]} is beyond every number"
        raise ValueError(message)
    return value
