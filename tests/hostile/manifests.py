"""Manifests that are malformed, edited, or say what no artifact of peftune says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hostile.case import (
    CONFIG,
    MANIFEST,
    SEAL,
    WEIGHTS,
    Case,
    Damage,
    Draft,
    cases,
    edits,
    manifest_text,
)

CONTROL_TEXTS = {
    "a terminal escape": "\x1b[2J\x1b[31mowned",
    "a new line": "good\nbad",
    "a carriage return": "good\rbad",
    "a NUL": "good\0",
    "a backspace": "good\b\b\b\bbad",
    "a one-byte escape": "good\x9b31m",
    "a line separator": "good\u2028bad",
    "a change of direction": "good\u202edab",
    "half a character": "good\ud800",
}
REQUIRED = (
    "format_version",
    "peftune_version",
    "kind",
    "strategy",
    "base",
    "task_name",
    "labels",
    "max_length",
    "tokenizer_sha256",
    "pad_token_id",
    "precision",
    "files",
    "behaviour",
)


def _text(change: Callable[[bytes], bytes]) -> Damage:
    """Change the manifest's bytes, whatever its seal says."""
    return lambda draft: draft.write(MANIFEST, change(draft.read(MANIFEST)))


def _without(key: str) -> Damage:
    def damage(draft: Draft) -> None:
        values = draft.manifest()
        values.pop(key)
        draft.write_manifest(values)

    return damage


def inside(part: str, **values: Any) -> Damage:  # noqa: ANN401 - JSON values
    """Replace values within one part of the manifest, and seal it again."""
    return lambda draft: draft.edit(**{part: {**draft.manifest()[part], **values}})


def _twice(key: str) -> Damage:
    """State a key twice, with a seal that fits what a lenient reader makes of it."""

    def change(content: bytes) -> bytes:
        return b'{"' + key.encode() + b'": null,' + content.lstrip()[1:]

    return _text(change)


def _twice_within(draft: Draft) -> None:
    text = draft.read(MANIFEST).decode()
    draft.write(MANIFEST, text.replace('"revision"', '"name": "evil", "revision"', 1).encode())


def _spelled(old: str, new: str) -> Damage:
    """Write a number in words that JSON does not have; a lenient reader would seal it so."""

    def damage(draft: Draft) -> None:
        values = {**draft.manifest(), "task": {"accuracy": old}}
        text = manifest_text({**values, SEAL: "0" * 64}).replace(f'"{old}"', new)
        lenient = json.loads(text)
        lenient.pop(SEAL)
        draft.write_manifest(lenient)
        sealed = draft.values(MANIFEST)[SEAL]
        draft.write(MANIFEST, text.replace("0" * 64, sealed).encode())

    return damage


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


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def _with_text(old: str, new: str) -> Damage:
    return _text(lambda content: content.replace(old.encode(), new.encode(), 1))


def _without_file(name: str) -> Damage:
    def damage(draft: Draft) -> None:
        files = draft.manifest()["files"]
        files.pop(name)
        draft.edit(files=files)

    return damage


def _hashes(change: Callable[[str], object]) -> Damage:
    def damage(draft: Draft) -> None:
        listed = draft.manifest()["files"]
        draft.edit(files={name: change(value) for name, value in listed.items()})

    return damage


_LAYOUT: dict[str, Damage] = {
    "an empty manifest": _text(lambda _: b""),
    "a manifest of spaces": _text(lambda _: b" " * 4096),
    "a manifest that is null": _text(lambda _: b"null"),
    "a manifest that is a list": _text(lambda content: b"[" + content + b"]"),
    "a manifest that is a number": _text(lambda _: b"3"),
    "a manifest cut in half": _text(lambda content: content[: len(content) // 2]),
    "a manifest that lacks its last byte": _text(lambda content: content[:-2]),
    "a manifest with something behind it": _text(lambda content: content + b"{}"),
    "a manifest with a NUL behind it": _text(lambda content: content + b"\0"),
    "a manifest with a byte-order mark": _text(lambda content: b"\xef\xbb\xbf" + content),
    "a manifest in UTF-16": _text(lambda content: content.decode().encode("utf-16")),
    "a manifest in UTF-32": _text(lambda content: content.decode().encode("utf-32")),
    "a manifest that is no UTF-8": _text(lambda content: content.replace(b"so-so", b"so\xffso")),
    "a manifest of another layout": _text(lambda content: content.replace(b"\n", b"\n\n")),
    "a manifest on one line": lambda draft: draft.write(
        MANIFEST, json.dumps(draft.values(MANIFEST)).encode()
    ),
    "a manifest of two megabytes": lambda draft: draft.edit(task={"note": "x" * 2_000_000}),
    "a manifest of two megabytes of spaces": _text(lambda content: content + b" " * 2_000_000),
    "a manifest of a hundred thousand keys": lambda draft: draft.edit(
        task={str(index): index for index in range(100_000)}
    ),
    "a manifest of deep brackets": _text(lambda _: _deep(100_000).encode()),
    "deep brackets in a value": _with_text('"task": null', f'"task": {{"a": {_deep(50_000)}}}'),
    "rather deep brackets in a value": lambda draft: draft.edit(
        task={"a": json.loads(_deep(400))}
    ),
    "a number of five thousand digits": _with_text('"max_length": 48', f'"max_length": {"9" * 5000}'),
    "a number of four thousand digits": _with_text('"max_length": 48', f'"max_length": {"9" * 4000}'),
    **{f"the key {key} twice": _twice(key) for key in ("labels", "strategy", "files", SEAL)},
    "a key of a part twice": _twice_within,
    "NaN in the manifest": _spelled("marked", "NaN"),
    "infinity in the manifest": _spelled("marked", "Infinity"),
    "minus infinity in the manifest": _spelled("marked", "-Infinity"),
    "a number beyond the largest in the manifest": _spelled("marked", "1e999"),
}  # fmt: skip

_KEYS: dict[str, Damage] = {
    **{f"no {key}": _without(key) for key in REQUIRED},
    "an unknown key": edits(loader="os.system"),
    "an unknown key of the base": inside("base", path="/etc"),
    "an unknown key of the strategy": inside("strategy", loader="os.system"),
    "an unknown key of the behaviour": inside("behaviour", tolerance=1e9),
    "an unknown key that is a terminal escape": edits(**{"\x1b[2J": 1}),
    **{f"format version {value!r}": edits(format_version=value) for value in (0, 1, 2.0, 3, 99, "2", True, None)},
    **{f"kind {value!r}": edits(kind=value) for value in ("model", "pickle", "", None, 1)},
    **{f"labels {value!r}": edits(labels=value) for value in ("bad", [1, 2, 3], ["bad", "so-so", None], {"0": "bad"}, None, [])},
    **{f"max_length {value!r}": edits(max_length=value) for value in ("48", 48.5, True, -1, 0, 1, 8, 100, 10**9, 10**30, None)},
    **{f"pad_token_id {value!r}": edits(pad_token_id=value) for value in ("0", -1, 1, 10**12, False, None)},
    **{f"task_name {value!r}": edits(task_name=value) for value in ("clustering", "regression", "language-modeling", "", None)},
    **{f"precision {value!r}": edits(precision=value) for value in ("float8", "int8", "", 32, None)},
    **{f"files {value!r}": edits(files=value) for value in ([], {}, None, {WEIGHTS: 1})},
    "peftune_version of another type": edits(peftune_version=1),
    "a peftune_version that is a terminal escape": edits(peftune_version="\x1b[2J"),
    "a tokenizer hash of another": edits(tokenizer_sha256="0" * 64),
    "a tokenizer hash that is empty": edits(tokenizer_sha256=""),
    "label thresholds of another count": edits(label_thresholds=[0.5]),
    "label thresholds beyond one": edits(label_thresholds=[0.5, 0.5, 1.5]),
    "label thresholds for one label each": edits(label_thresholds=[0.9, 0.1, 0.1]),
    "task results that are a list": edits(task=[1]),
    "forgetting results that are no list": edits(forgetting={"name": "prose"}),
    "rescaled beyond the tuned model": edits(rescaled={"alpha": 5.0, "shallow": None, "head": "kept", "from_sha256": "0" * 64}),
    "started from a pickle": edits(started_from={"kind": "pickle", "sha256": "0" * 64}),
}  # fmt: skip

_LABELS: dict[str, Damage] = {
    "two labels of three": edits(labels=["bad", "so-so"]),
    "four labels of three": edits(labels=["bad", "so-so", "good", "great"]),
    "a hundred thousand labels": edits(labels=[str(index) for index in range(100_000)]),
    "a label twice": edits(labels=["bad", "so-so", "bad"]),
    **{
        f"a label with {what}": edits(labels=["bad", "so-so", text])
        for what, text in CONTROL_TEXTS.items()
    },
}
_STRINGS: dict[str, Damage] = {
    **{f"a base name with {what}": inside("base", name=text) for what, text in CONTROL_TEXTS.items()},
    "a base revision with a terminal escape": inside("base", revision="\x1b[2J"),
    "a task result with a terminal escape": edits(task={"data": "\x1b[2J"}),
    "a task result whose name is a terminal escape": edits(task={"\x1b[2J": 1.0}),
    "a forgetting result with a terminal escape": edits(forgetting=[{"name": "\x1b[2J"}]),
}  # fmt: skip

_BEHAVIOUR: dict[str, Damage] = {
    "logits moved by one": _logits(lambda value: value + 1.0),
    "logits turned round": _logits(lambda value: -value),
    "logits of zero": _logits(lambda _: 0.0),
    "logits beyond the largest number": _logits(lambda value: float("inf") if value > 0 else value),
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


_FILE_LIST: dict[str, Damage] = {
    "hashes in capitals": _hashes(str.upper),
    "hashes of nothing": _hashes(lambda _: ""),
    "hashes that are numbers": _hashes(lambda _: 0),
    "hashes of another kind": _hashes(lambda value: f"md5:{value[:32]}"),
    f"{WEIGHTS} not listed": _without_file(WEIGHTS),
    f"{CONFIG} not listed": _without_file(CONFIG),
    "the card not listed": _without_file("README.md"),
}
_UNSEALED: dict[str, Damage] = {
    "labels in another order": lambda draft: draft.edit(
        sealed=False, labels=["good", "so-so", "bad"]
    ),
    "a better accuracy": lambda draft: draft.edit(sealed=False, task={"accuracy": 0.99}),
    "another alpha": lambda draft: draft.edit(
        sealed=False, strategy={**draft.manifest()["strategy"], "lora_alpha": 17.0}
    ),
    "another base": lambda draft: draft.edit(
        sealed=False, base={**draft.manifest()["base"], "name": "evil"}
    ),
    "another length": lambda draft: draft.edit(sealed=False, max_length=47),
    "another version": lambda draft: draft.edit(sealed=False, peftune_version="0"),
    "another task": lambda draft: draft.edit(sealed=False, task_name="multi-label"),
    "other hashes": lambda draft: draft.edit(sealed=False, files={}),
    "no seal": lambda draft: draft.write(MANIFEST, manifest_text(draft.manifest()).encode()),
    **{
        f"a seal that is {what}": _text(
            lambda content, value=value: manifest_text(
                {**json.loads(content), SEAL: value}
            ).encode()
        )
        for what, value in {"null": None, "zero": 0, "empty": "", "another": "0" * 64}.items()
    },
    "a seal in capitals": _text(
        lambda content: manifest_text(
            {**json.loads(content), SEAL: json.loads(content)[SEAL].upper()}
        ).encode()
    ),
}

MANIFEST_CASES: tuple[Case, ...] = (
    *cases("lora", {**_LAYOUT, **_KEYS, **_LABELS, **_STRINGS, **_BEHAVIOUR, **_FILE_LIST}),
    *cases("lora", _UNSEALED, unsealed=True),
    *cases(
        "full",
        {
            "kind 'adapter'": edits(kind="adapter"),
            "labels of another count": edits(labels=["bad", "good"]),
            "labels in another order": edits(labels=["good", "so-so", "bad"]),
            "labels of other names": edits(labels=["a", "b", "c"]),
            "pad_token_id 1": edits(pad_token_id=1),
            "max_length 8": edits(max_length=8),
            "max_length 100": edits(max_length=100),
            "task_name 'multi-label'": edits(task_name="multi-label"),
            "a tokenizer hash of another": edits(tokenizer_sha256="0" * 64),
            "logits moved by one": _BEHAVIOUR["logits moved by one"],
            "logits beyond the largest number": _BEHAVIOUR["logits beyond the largest number"],
        },
    ),
    *cases(
        "lora-8bit",
        {
            "precision 'float32'": edits(precision="float32"),
            "logits moved by one": _BEHAVIOUR["logits moved by one"],
            "logits beyond the largest number": _BEHAVIOUR["logits beyond the largest number"],
            "no logits": _BEHAVIOUR["no logits"],
            "logits of float32 alone": _precisions("float32"),
            "a precision of float32, throughout": lambda draft: (
                _precisions("float32")(draft),
                draft.edit(precision="float32"),
            ),
        },
    ),
    *cases(
        "head-only",
        {
            "logits moved by one": _BEHAVIOUR["logits moved by one"],
            "two labels of three": _LABELS["two labels of three"],
            "four labels of three": _LABELS["four labels of three"],
        },
    ),
)
