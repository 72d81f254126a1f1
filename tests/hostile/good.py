"""The good artifacts that the corpus damages, and the bases that a load is given."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from bases import write_base

import peftune
from hostile.case import CARD, CONFIG, MANIFEST, Artifact
from peftune.models.architecture import trainable_parameters
from peftune.strategies import Strategy

LABELS = ("bad", "so-so", "good")
MAX_LENGTH = 48
STRATEGIES: dict[Artifact, Strategy] = {
    "lora": peftune.LoRA(r=4),
    "head-only": peftune.HeadOnly(),
    "lora-8bit": peftune.LoRA8bit(r=4),
    "full": peftune.Full(),
}
BASES = ("own", "of other weights", "deeper", "shallower", "of another tokenizer")


@dataclass(frozen=True, slots=True)
class Good:
    """Folders of good artifacts and of bases, by name."""

    artifacts: dict[Artifact, Path]
    bases: dict[str, Path]


def write_good(folder: Path) -> Good:
    """Write every good artifact and every base."""
    bases = {name: folder / "bases" / name.replace(" ", "-") for name in BASES}
    write_base(bases["own"])
    write_base(bases["of other weights"], seed=1)
    write_base(bases["of another tokenizer"], reverse_bytes=True)
    for name, blocks in (("deeper", 3), ("shallower", 1)):
        _with_blocks(bases["own"], bases[name], blocks)
    artifacts = {
        name: _saved(bases["own"], strategy, folder / "good" / name)
        for name, strategy in STRATEGIES.items()
    }
    artifacts["plain"] = _plain(artifacts["lora"], folder / "good" / "plain")
    return Good(artifacts, bases)


def _saved(base: Path, strategy: Strategy, folder: Path) -> Path:
    """Prepare a model, move every weight that learns as training would, and save it."""
    model, _ = peftune.prepare(
        str(base), strategy=strategy, labels=LABELS, max_length=MAX_LENGTH, seed=3, use_cpu=True
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return peftune.save(model, folder)


def _plain(adapter: Path, folder: Path) -> Path:
    """Leave what a tool other than peftune would have written."""
    shutil.copytree(adapter, folder, ignore=shutil.ignore_patterns(MANIFEST, CARD))
    path = folder / CONFIG
    values = {**json.loads(path.read_text()), "base_model_name_or_path": "someone/tiny"}
    path.write_text(json.dumps(values, indent=2))
    return folder


def _with_blocks(base: Path, folder: Path, blocks: int) -> None:
    """Write the same base with a block more or less."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    config = json.loads((base / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": blocks}))
    tensors = load_file(base / "model.safetensors")
    kept = {name: one for name, one in tensors.items() if _block_of(name) < blocks}
    for name, one in tensors.items():
        if _block_of(name) == 1 and blocks > 2:
            kept[name.replace(".h.1.", ".h.2.")] = one.clone()
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _block_of(name: str) -> int:
    return int(name.partition(".h.")[2].partition(".")[0] or 0)
