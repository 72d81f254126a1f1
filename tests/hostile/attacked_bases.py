"""Bases that an attacker wrote: beside an artifact, or named by the user who was sent one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.case import Draft
from hostile.raw_safetensors import header_of, joined

BaseDamage = Callable[[Path], object]

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"


def put_beside(draft: Draft) -> Path:
    """Copy the true base to where a run folder has it, and let the manifest say so."""
    base = draft.folder.parent / "base"
    shutil.copytree(draft.true_base, base)
    start = {"kind": "base", "sha256": "0" * 64, "task_name": "single-label"}
    draft.edit(started_from={**start, "origin": draft.manifest()["base"]})
    return base


def _json(name: str, **values: Any) -> BaseDamage:  # noqa: ANN401 - JSON values
    def damage(base: Path) -> None:
        path = base / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**found, **values}))

    return damage


def _text(name: str, change: Callable[[bytes], bytes]) -> BaseDamage:
    def damage(base: Path) -> None:
        path = base / name
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))

    return damage


def _pipe(name: str) -> BaseDamage:
    def damage(base: Path) -> None:
        (base / name).unlink(missing_ok=True)
        os.mkfifo(base / name)

    return damage


def _link(name: str, target: str) -> BaseDamage:
    def damage(base: Path) -> None:
        (base / name).unlink(missing_ok=True)
        (base / name).symlink_to(target)

    return damage


def _moved_out(name: str) -> BaseDamage:
    def damage(base: Path) -> None:
        outside = base.parent / f"outside-{name}"
        (base / name).rename(outside)
        (base / name).symlink_to(outside)

    return damage


def _crowd(base: Path) -> None:
    for number in range(100_000):
        (base / str(number)).touch()


def _sparse(name: str) -> BaseDamage:
    return lambda base: os.truncate(base / name, 10 * 2**30)


def _index(values: object) -> BaseDamage:
    def damage(base: Path) -> None:
        (base / _WEIGHTS).rename(base / "model-00001-of-00001.safetensors")
        (base / _INDEX).write_text(json.dumps(values))

    return damage


def _header(change: Callable[[dict[str, Any]], object]) -> BaseDamage:
    def damage(base: Path) -> None:
        header, data = header_of((base / _WEIGHTS).read_bytes())
        change(header)
        text = json.dumps(header, separators=(",", ":")).encode()
        (base / _WEIGHTS).write_bytes(joined(text, data))

    return damage


def _header_text(change: Callable[[bytes], bytes]) -> BaseDamage:
    def damage(base: Path) -> None:
        header, data = header_of((base / _WEIGHTS).read_bytes())
        text = json.dumps(header, separators=(",", ":")).encode()
        (base / _WEIGHTS).write_bytes(joined(change(text), data))

    return damage


def _tensor(**values: Any) -> BaseDamage:  # noqa: ANN401 - JSON values
    return _header(lambda header: header[min(set(header) - {"__metadata__"})].update(values))


def _part(name: str, value: object) -> BaseDamage:
    return _json(_TOKENIZER, **{name: value})


def _model(**values: Any) -> BaseDamage:  # noqa: ANN401 - JSON values
    def damage(base: Path) -> None:
        parts = json.loads((base / _TOKENIZER).read_text())
        parts["model"].update(values)
        (base / _TOKENIZER).write_text(json.dumps(parts))

    return damage


_GROWS = [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}] * 10
_PATTERN = {
    "type": "Split",
    "pattern": {"Regex": "(a+)+$"},
    "behavior": "Isolated",
    "invert": False,
}
_DEEP = b"[" * 100_000

DAMAGES: dict[str, BaseDamage] = {
    **{
        f"{key} {value!r}": _json(_CONFIG, **{key: value})
        for key, values in {
            "n_layer": (100_000, 0, -1, True, 2.0, "2", None),
            "n_positions": (2**40, -64, "64"),
            "n_embd": (2**31, 0, [32]),
            "n_head": (10**6, 0),
            "n_inner": (2**40, -1),
            "vocab_size": (2**40, 0, None),
            "layer_norm_epsilon": ("1e-5", -1),
            "attn_pdrop": (2, "0"),
            "activation_function": ({}, "x" * 1000),
            "num_labels": (10**9,),
            "eos_token_id": (2**40, "0"),
            "auto_map": ({"AutoModel": "evil.Model"},),
            "quantization_config": ({"load_in_8bit": True},),
            "num_hidden_layers": (100_000,),
            "_attn_implementation": ("evil/kernel",),
            "transformers_weights": ("/etc/passwd",),
        }.items()
        for value in values
    },
    "config.json is a pipe": _pipe(_CONFIG),
    "config.json is a device": _link(_CONFIG, "/dev/zero"),
    "config.json is a list": _text(_CONFIG, lambda _: b"[]"),
    "config.json has a NaN": _text(_CONFIG, lambda text: b'{"initializer_range": NaN,' + text[1:]),
    "config.json has a key twice": _text(_CONFIG, lambda text: b'{"n_layer": 9,' + text[1:]),
    "config.json of deep brackets": _text(_CONFIG, lambda _: _DEEP),
    "config.json is not UTF-8": _text(_CONFIG, lambda text: b'{"\xff": 1,' + text[1:]),
    "config.json of ten gigabytes": _sparse(_CONFIG),
    "an index that is a list": _index([]),
    "an index without a map": _index({}),
    "an index whose map is a list": _index({"weight_map": ["a.safetensors"]}),
    "an index that names a file of the system": _index({"weight_map": {"wte.weight": "/etc/passwd"}}),
    "an index that leaves the folder": _index({"weight_map": {"wte.weight": "../../secret"}}),
    "an index that names a number": _index({"weight_map": {"wte.weight": 7}}),
    "weights that are a pipe": _pipe(_WEIGHTS),
    "weights of ten gigabytes of holes": _sparse(_WEIGHTS),
    "weights cut short": _text(_WEIGHTS, lambda content: content[:-4]),
    "weights with a header of 2^63": _text(_WEIGHTS, lambda content: b"\xff" * 7 + b"\x7f" + content[8:]),
    "weights with minus zero": _header_text(lambda text: text.replace(b":[0,", b":[-0,", 1)),
    "weights with lines in the header": _header_text(lambda text: b"{" + b"\n" * 900_000 + text[1:]),
    "weights that overlap": _tensor(data_offsets=[0, 4]),
    "weights of an unknown type": _tensor(dtype="F1"),
    "weights of a shape that overflows": _tensor(shape=[2**62, 4]),
    "a normalizer that grows texts": _part("normalizer", {"type": "Sequence", "normalizers": _GROWS}),
    "a pattern that never ends": _part("pre_tokenizer", _PATTERN),
    "a model of another kind": _part("model", {"type": "WordPiece", "vocab": {"a": 0}}),
    "a decoder of another kind": _part("decoder", {"type": "Strip", "content": "a", "start": 1, "stop": 1}),
    "an added token far out": _part("added_tokens", [{"id": 2**40, "content": "far"}]),
    "an added token of a megabyte": _part("added_tokens", [{"id": 5, "content": "x" * 2**20}]),
    "padding to a billion": _part("padding", {"strategy": {"Fixed": 2**40}}),
    "a BPE with dropout": _model(dropout=0.5),
    "a vocabulary with an id twice": _model(vocab={"<|endoftext|>": 0, "a": 1, "b": 1}),
    "a vocabulary with a negative id": _model(vocab={"<|endoftext|>": 0, "a": -1}),
    "merges that are numbers": _model(merges=[1, 2]),
    "tokenizer.json is a pipe": _pipe(_TOKENIZER),
    "tokenizer.json of ten gigabytes": _sparse(_TOKENIZER),
    "tokenizer.json of deep brackets": _text(_TOKENIZER, lambda _: _DEEP),
    "tokenizer settings with code": _json(_SETTINGS, auto_map={"AutoTokenizer": ["evil.T", None]}),
    "tokenizer settings of another class": _json(_SETTINGS, tokenizer_class="LlamaTokenizer"),
    "an adapter in the folder": _json("adapter_config.json", peft_type="LORA"),
}  # fmt: skip
"""What is refused in any base."""

BESIDE_DAMAGES: dict[str, BaseDamage] = {
    **{f"{name} is a link": _moved_out(name) for name in (_CONFIG, _WEIGHTS, _TOKENIZER)},
    "an unknown key in config.json": _json(_CONFIG, spare=1),
    "an unknown key in the tokenizer's settings": _json(_SETTINGS, spare=1),
    "code beside": _text("modeling.py", lambda _: b"raise SystemExit\n"),
    "pickled weights beside": _text("pytorch_model.bin", lambda _: b"\x80\x04."),
    "a folder in it": lambda base: (base / "more").mkdir(),
    "a hundred thousand entries": _crowd,
}
"""What is refused in a base that nobody named."""
