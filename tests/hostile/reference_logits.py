"""Manifests that record logits which the artifact does not give, or none that it could."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostile.case import Case, Damage, Draft, cases, edits, inside


def _rows(change: Callable[[list[Any]], list[Any]]) -> Damage:
    """Change the recorded rows of every precision."""

    def damage(draft: Draft) -> None:
        behaviour = draft.manifest()["behaviour"]
        changed = {name: change(rows) for name, rows in behaviour["logits"].items()}
        draft.edit(behaviour={**behaviour, "logits": changed})

    return damage


def _texts(change: Callable[[list[Any]], list[Any]]) -> Damage:
    """Change the recorded texts."""

    def damage(draft: Draft) -> None:
        behaviour = draft.manifest()["behaviour"]
        draft.edit(behaviour={**behaviour, "texts": change(behaviour["texts"])})

    return damage


def _logits(change: Callable[[float], object]) -> Damage:
    return _rows(lambda rows: [[change(value) for value in row] for row in rows])


def _precisions(*names: str) -> Damage:
    """Record the logits of float32 under other precisions."""

    def damage(draft: Draft) -> None:
        behaviour = draft.manifest()["behaviour"]
        rows = behaviour["logits"]["float32"]
        draft.edit(behaviour={**behaviour, "logits": dict.fromkeys(names, rows)})

    return damage


def _int8_throughout(draft: Draft) -> None:
    """Ask to be compared as loosely as int8 is."""
    _precisions("float32", "int8")(draft)
    draft.edit(precision="int8")


def _float32_throughout(draft: Draft) -> None:
    """Hide that it was trained on an int8 base."""
    _precisions("float32")(draft)
    draft.edit(precision="float32")


def _beyond_float32(draft: Draft) -> None:
    """Record one number that no model gives, of the longest text, which no load replays."""
    behaviour = draft.manifest()["behaviour"]
    longest = max(range(len(behaviour["texts"])), key=lambda row: len(behaviour["texts"][row]))
    rows = behaviour["logits"]["float32"]
    changed = [[1e308, *row[1:]] if place == longest else row for place, row in enumerate(rows)]
    draft.edit(behaviour={**behaviour, "logits": {**behaviour["logits"], "float32": changed}})


_BEHAVIOUR: dict[str, Damage] = {
    "logits moved by one": _logits(lambda value: value + 1.0),
    "logits turned round": _logits(lambda value: -value),
    "logits of zero": _logits(lambda _: 0.0),
    "logits beyond the largest number": _logits(lambda value: float("inf") if value > 0 else value),
    "logits beyond float32": _logits(lambda value: 1e308 if value > 0 else value),
    "one logit beyond float32, of a long text": _beyond_float32,
    "logits that are words": _logits(str),
    "logits that are true": _logits(lambda value: value > 0),
    "logits that are null": _logits(lambda _: None),
    "no logits": _rows(lambda _: []),
    "empty rows of logits": _rows(lambda rows: [[] for _ in rows]),
    "fewer rows of logits": _rows(lambda rows: rows[:1]),
    "a row of logits fewer": _rows(lambda rows: rows[:-1]),
    "a thousand rows of logits": _rows(lambda rows: rows * 64),
    "shorter rows of logits": _rows(lambda rows: [row[:-1] for row in rows]),
    "longer rows of logits": _rows(lambda rows: [[*row, 0.0] for row in rows]),
    "one longer row of logits": _rows(lambda rows: [[*rows[0], 0.0], *rows[1:]]),
    "rows of logits in another order": _rows(lambda rows: rows[::-1]),
    "logits as one row": _rows(lambda rows: [value for row in rows for value in row]),
    "a precision of int8, throughout": _int8_throughout,
    "a behaviour that is null": edits(behaviour=None),
    "a behaviour that is a list": edits(behaviour=[]),
    "other texts": _texts(lambda texts: ["x" for _ in texts]),
    "the shortest texts exchanged for others": _texts(
        lambda texts: [text if len(text) > 40 else f"not {text}" for text in texts]
    ),
    "texts in another order": _texts(lambda texts: texts[::-1]),
    "a text fewer": _texts(lambda texts: texts[:-1]),
    "no texts": _texts(lambda _: []),
    "a text too many": _texts(lambda texts: [*texts, "one more"]),
    "a text that is a number": _texts(lambda texts: [1, *texts[1:]]),
    "a text of a thousand characters and one": _texts(lambda texts: ["x" * 1001, *texts[1:]]),
    "a text with a terminal escape": _texts(lambda texts: ["\x1b[2J", *texts[1:]]),
    "seventeen texts with their logits": lambda draft: (
        _texts(lambda texts: [*texts, texts[0]])(draft),
        _rows(lambda rows: [*rows, rows[0]])(draft),
    ),
    "logits of an unknown precision": inside("behaviour", logits={"int1": [[0.0, 0.0, 0.0]] * 16}),
    "logits of int8 alone": _precisions("int8"),
    "logits of int8 for a float adapter": _precisions("float32", "int8"),
}  # fmt: skip

_OF_EVERY_ARTIFACT = {
    name: _BEHAVIOUR[name]
    for name in ("logits moved by one", "logits beyond the largest number", "no logits")
}

REFERENCE_LOGITS_CASES: tuple[Case, ...] = (
    *cases("lora", _BEHAVIOUR),
    *cases("full", _OF_EVERY_ARTIFACT),
    *cases("head-only", _OF_EVERY_ARTIFACT),
    *cases(
        "lora-8bit",
        {
            **_OF_EVERY_ARTIFACT,
            "precision 'float32'": edits(precision="float32"),
            "logits of float32 alone": _precisions("float32"),
            "a precision of float32, throughout": _float32_throughout,
        },
    ),
)
