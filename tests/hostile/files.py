"""Folders with something in them that no artifact has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hostile.case import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    Case,
    Damage,
    Draft,
    cases,
)
from hostile.payloads import (
    EVIL_MODULE,
    numpy_objects,
    pickled,
    python_source,
    torch_archive,
)

_EXTRA: dict[str, Callable[[Path], bytes]] = {
    "adapter_model.bin": torch_archive,
    "pytorch_model.bin": torch_archive,
    "training_args.bin": torch_archive,
    "optimizer.pt": torch_archive,
    "scheduler.pt": torch_archive,
    "rng_state.pth": torch_archive,
    "state.pkl": pickled,
    "state.joblib": pickled,
    "array.npy": numpy_objects,
    f"{EVIL_MODULE}.py": python_source,
    "modeling_gpt2.py": python_source,
    "__init__.py": python_source,
    "sitecustomize.py": python_source,
    "special_tokens_map.json": lambda _: b"{}",
    "chat_template.jinja": lambda _: b"{{ cycler.__init__.__globals__.os.system('true') }}",
    "generation_config.json": lambda _: b"{}",
    "model.safetensors.index.json": lambda _: b'{"weight_map": {}}',
    "adapter_model.safetensors.bak": lambda _: b"",
    "Adapter_Model.safetensors": lambda _: b"",
    ".hidden": lambda _: b"",
    "name with \x1b[2J an escape": lambda _: b"",
    "two\nlines": lambda _: b"",
    "n" * 250: lambda _: b"",
}
_OF_AN_ADAPTER = {
    "config.json": lambda _: b'{"model_type": "gpt2"}',
    "tokenizer.json": lambda _: b"{}",
    "tokenizer_config.json": lambda _: b'{"auto_map": {"AutoTokenizer": ["evil.T", null]}}',
    "model.safetensors": lambda _: b"\x02\0\0\0\0\0\0\0{}",
}


def _extra(name: str, content: Callable[[Path], bytes], *, listed: bool) -> Damage:
    def damage(draft: Draft) -> None:
        (draft.forge if listed else draft.write)(name, content(draft.marker))

    return damage


def _added(extra: dict[str, Callable[[Path], bytes]]) -> dict[str, Damage]:
    damages: dict[str, Damage] = {}
    for name, content in extra.items():
        shown = repr(name)[1:-1][:40]
        damages[f"{shown} beside, listed"] = _extra(name, content, listed=True)
        damages[f"{shown} beside"] = _extra(name, content, listed=False)
    return damages


def _nested(draft: Draft) -> None:
    (draft.folder / "nested").mkdir()
    (draft.folder / "nested" / WEIGHTS).write_bytes(draft.read(WEIGHTS))


def _many(draft: Draft) -> None:
    for index in range(5_000):
        (draft.folder / f"{index}").touch()


def _listed(name: str) -> Damage:
    """List a file that lies elsewhere."""

    def damage(draft: Draft) -> None:
        listed = draft.manifest()["files"]
        draft.edit(files={**listed, name: listed[WEIGHTS]})

    return damage


def _lists_itself(draft: Draft) -> None:
    listed = draft.manifest()["files"]
    draft.edit(files={**listed, MANIFEST: listed[WEIGHTS]})


def _pickle_in_place(draft: Draft) -> None:
    draft.forge(WEIGHTS, pickled(draft.marker))


def _archive_in_place(draft: Draft) -> None:
    draft.forge(WEIGHTS, torch_archive(draft.marker))


def _pickle_instead(draft: Draft) -> None:
    """Offer a pickle where the tensors are missing, as a loader with a fallback would take it."""
    (draft.folder / WEIGHTS).unlink()
    draft.forge("adapter_model.bin", torch_archive(draft.marker))
    files = draft.manifest()["files"]
    files.pop(WEIGHTS)
    draft.edit(files=files)


def _link_beside(draft: Draft) -> None:
    (draft.folder / "beside").symlink_to("/etc")


def _not_unicode(draft: Draft) -> None:
    Path(os.fsdecode(os.fsencode(draft.folder) + b"/\xff\xfe")).touch()


_SPECIAL: dict[str, Damage] = {
    "a folder in the folder": _nested,
    "five thousand files beside": _many,
    "a link beside": _link_beside,
    "a name that is no text beside": _not_unicode,
    "a pickle in the place of the tensors": _pickle_in_place,
    "a torch archive in the place of the tensors": _archive_in_place,
    "a torch archive instead of the tensors": _pickle_instead,
    **{
        f"a listed file that is {what}": _listed(name)
        for what, name in {
            "a path upwards": "../good/lora/adapter_model.safetensors",
            "an absolute path": "/etc/passwd",
            "empty": "",
            "the folder itself": ".",
            "the folder above": "..",
            "missing": "missing.safetensors",
            "a detour": f"./{WEIGHTS}",
        }.items()
    },
}

FILE_CASES: tuple[Case, ...] = (
    *cases("lora", {**_added({**_EXTRA, **_OF_AN_ADAPTER}), **_SPECIAL}),
    *cases("lora", {"a manifest that lists itself": _lists_itself}, unfitting=True),
    *cases("full", _added({**_EXTRA, WEIGHTS: lambda _: b"", CONFIG: lambda _: b"{}"})),
    *cases("head-only", _added({CONFIG: lambda _: b'{"peft_type": "LORA"}'})),
)
