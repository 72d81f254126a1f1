"""Manifests in other bytes than peftune writes, and edited ones whose digest does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable

from hostile.case import DIGEST, MANIFEST, Case, Damage, Draft, cases, manifest_text


def _text(change: Callable[[bytes], bytes]) -> Damage:
    """Change the manifest's bytes, whatever its digest says."""
    return lambda draft: draft.write(MANIFEST, change(draft.read(MANIFEST)))


def _twice(key: str) -> Damage:
    """State a key twice, with a digest that fits what a lenient reader makes of it."""

    def change(content: bytes) -> bytes:
        return b'{"' + key.encode() + b'": null,' + content.lstrip()[1:]

    return _text(change)


def _twice_within(draft: Draft) -> None:
    text = draft.read(MANIFEST).decode()
    draft.write(MANIFEST, text.replace('"revision"', '"name": "evil", "revision"', 1).encode())


def _spelled(old: str, new: str) -> Damage:
    """Write a number in words that JSON does not have; a lenient reader would make its digest so."""

    def damage(draft: Draft) -> None:
        values = {**draft.manifest(), "task": {"accuracy": old}}
        text = manifest_text({**values, DIGEST: "0" * 64}).replace(f'"{old}"', new)
        lenient = json.loads(text)
        lenient.pop(DIGEST)
        draft.write_manifest(lenient)
        digest = draft.values(MANIFEST)[DIGEST]
        draft.write(MANIFEST, text.replace("0" * 64, digest).encode())

    return damage


def _with_digest(change: Callable[[str], object]) -> Damage:
    """Write the digest changed beside the same content."""

    def damage(draft: Draft) -> None:
        values = draft.values(MANIFEST)
        draft.write(MANIFEST, manifest_text({**values, DIGEST: change(values[DIGEST])}).encode())

    return damage


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def _with_text(old: str, new: str) -> Damage:
    return _text(lambda content: content.replace(old.encode(), new.encode(), 1))


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
    "a manifest that is not UTF-8": _text(lambda content: content.replace(b"so-so", b"so\xffso")),
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
    **{f"the key {key} twice": _twice(key) for key in ("labels", "strategy", "files", DIGEST)},
    "a key of a part twice": _twice_within,
    "NaN in the manifest": _spelled("marked", "NaN"),
    "infinity in the manifest": _spelled("marked", "Infinity"),
    "minus infinity in the manifest": _spelled("marked", "-Infinity"),
    "a number beyond the largest in the manifest": _spelled("marked", "1e999"),
}  # fmt: skip

_DIGESTS = {"null": None, "zero": 0, "empty": "", "another": "0" * 64}
_UNFITTING: dict[str, Damage] = {
    "labels in another order": lambda draft: draft.edit(
        fitting=False, labels=["good", "so-so", "bad"]
    ),
    "a better accuracy": lambda draft: draft.edit(fitting=False, task={"accuracy": 0.99}),
    "another alpha": lambda draft: draft.edit(
        fitting=False, strategy={**draft.manifest()["strategy"], "lora_alpha": 17.0}
    ),
    "another base": lambda draft: draft.edit(
        fitting=False, base={**draft.manifest()["base"], "name": "evil"}
    ),
    "another length": lambda draft: draft.edit(fitting=False, max_length=47),
    "another version": lambda draft: draft.edit(fitting=False, peftune_version="0"),
    "another task": lambda draft: draft.edit(fitting=False, task_name="multi-label"),
    "other hashes": lambda draft: draft.edit(fitting=False, files={}),
    "no digest": lambda draft: draft.write(MANIFEST, manifest_text(draft.manifest()).encode()),
    **{
        f"a digest that is {what}": _with_digest(lambda _, value=value: value)  # type: ignore[misc]
        for what, value in _DIGESTS.items()
    },
    "a digest in capitals": _with_digest(str.upper),
}

LAYOUT_CASES: tuple[Case, ...] = (
    *cases("lora", _LAYOUT),
    *cases("lora", _UNFITTING, unfitting=True),
)
