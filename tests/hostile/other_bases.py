"""Good artifacts on a base that is not theirs, and artifacts that name a base to be fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from hostile.case import Artifact, Case, Damage, Draft, cases, inside
from hostile.good import BASES


def _as_it_is(_: Draft) -> None:
    """Nothing is damaged: the base is another one."""


def _on_other_bases() -> Iterator[Case]:
    kinds: tuple[Artifact, ...] = ("lora", "head-only", "lora-8bit")
    for kind in kinds:
        for base in BASES[1:]:
            yield Case(f"{kind}: a base {base}", kind, _as_it_is, base=base)


def _base_beside(draft: Draft) -> None:
    """Say that it stands on a base of its own, which lies where a run would put it."""
    base = draft.folder.parent / "base"
    shutil.copytree(draft.outside, base)
    (base / "config.json").write_text('{"model_type": "gpt2"}')
    _started(draft)


def _linked_base_beside(draft: Draft) -> None:
    (draft.folder.parent / "base").symlink_to(draft.outside)
    _started(draft)


def _started(draft: Draft) -> None:
    manifest = draft.manifest()
    start = {"kind": "base", "sha256": "0" * 64, "task_name": "single-label"}
    draft.edit(started_from={**start, "origin": manifest["base"]})


def _at_a_path(draft: Draft) -> None:
    """Name the folder of the true base: it would fit, but an artifact names no path."""
    inside("base", name=str(draft.true_base))(draft)


_NAMED: dict[str, Damage] = {
    "the path of its base as the name": _at_a_path,
    "the path of its base, in fewer words": lambda draft: inside(
        "base", name=f"{draft.true_base.parent}/./{draft.true_base.name}"
    )(draft),
    **{
        f"a base named {name!r}": inside("base", name=name)
        for name in (
            "gpt2", "evil/model", "evil/model@main", "../outside", "./outside", "~", "/etc",
            "https://example.org/model", "hf://evil/model", "file:///etc", "bundled:tiny-gpt2",
            "bundled:nothing", "bundled:../../../etc", "", "..", "a" * 100_000, "-rf", "C:\\base",
        )
    },
    "a base name that is a list": inside("base", name=["gpt2"]),
    "a base name that is null": inside("base", name=None),
    "a revision that is a path": inside("base", name="evil/model", revision="../../../etc"),
    "a revision of a branch": inside("base", name="evil/model", revision="main"),
    "a base beside it": _base_beside,
    "a link to a base beside it": _linked_base_beside,
}  # fmt: skip

_IDENTITY: dict[str, Damage] = {
    "a fingerprint of zeros": inside("base", fingerprint="0" * 64),
    "a fingerprint that is empty": inside("base", fingerprint=""),
    "a fingerprint that is null": inside("base", fingerprint=None),
    "a fingerprint in capitals": lambda draft: inside(
        "base", fingerprint=draft.manifest()["base"]["fingerprint"].upper()
    )(draft),
    "a shortened fingerprint": lambda draft: inside(
        "base", fingerprint=draft.manifest()["base"]["fingerprint"][:12]
    )(draft),
    "a revision that is a number": inside("base", revision=7),
    "a base that is a name": lambda draft: draft.edit(base="tiny"),
    "a base that is null": lambda draft: draft.edit(base=None),
}

BASE_CASES: tuple[Case, ...] = (
    *_on_other_bases(),
    *cases("lora", _NAMED, base=None),
    *cases("lora", _IDENTITY),
)
