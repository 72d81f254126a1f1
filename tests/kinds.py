"""Small recipes for what is learned one after another: documents, then labels, on a random base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import peftune
from peftune.models.architecture import backbone_of, evaluating, trainable_parameters
from peftune.recipe.schema import DataSection, ForgettingSection, ModelSection, Stage, TaskName
from peftune.recipe.training import TrainingSection
from peftune.strategies import Strategy

STRATEGIES: dict[str, Strategy] = {
    "full": peftune.Full(),
    "half": peftune.Full(freeze_layers=1),
    "lora": peftune.LoRA(r=2),
    "lora-8bit": peftune.LoRA8bit(r=2),
    "head-only": peftune.HeadOnly(),
}
TRAINING = TrainingSection(
    max_steps=2,
    per_device_train_batch_size=4,
    learning_rate=0.01,
    use_cpu=True,
    logging_steps=1,
)
_NOUNS = ("tide", "oven", "ledger", "hinge", "comet", "gravel", "saddle", "violin", "acorn", "map")


def write_documents(path: Path, count: int = 24) -> Path:
    """Write documents of a domain, one JSON line each."""
    lines = [
        {
            "text": f"The {_NOUNS[i % 10]} number {i * 37} was {_NOUNS[(i * 7 + 3) % 10]}ish, {i} times."
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_rows(path: Path, count: int = 24) -> Path:
    """Write labeled rows, one JSON line each."""
    lines = [
        {"text": f"{_NOUNS[i % 10]} {_NOUNS[(i * 3 + 1) % 10]} {i * 101}", "label": "ab"[i % 2]}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def recipe(
    folder: Path,
    base: Path,
    strategy: Strategy,
    *,
    name: str = "small",
    task: TaskName = "single-label",
    init_from: Path | None = None,
    stages: Sequence[Stage] = (),
    probes: bool = True,
) -> peftune.Recipe:
    """Make a recipe of two steps, with one probe of ten documents."""
    write = write_documents if task == "language-modeling" else write_rows
    probe = write_probe(folder / "probe.jsonl")
    return peftune.Recipe(
        version=1,
        name=name,
        task=task,
        model=ModelSection(
            name_or_path=str(base),
            max_length=16,
            init_from=None if init_from is None else str(init_from),
        ),
        stages=tuple(stages),
        data=DataSection(train_file=str(write(folder / f"{task}.jsonl"))),
        strategy=strategy,
        training=TRAINING,
        forgetting=ForgettingSection(
            probes=(peftune.probes.LanguageModelLoss(file=str(probe)),) if probes else ()
        ),
        output_dir=str(folder / name),
    )


def write_probe(path: Path) -> Path:
    """Write ten documents that share nothing with the others."""
    lines = [{"text": f"{chr(97 + i) * 3} quiet {chr(107 + i) * 2} {i * i}."} for i in range(10)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def stage(folder: Path, name: str, task: TaskName = "language-modeling") -> Stage:
    """Make a stage of two steps."""
    write = write_documents if task == "language-modeling" else write_rows
    rows = write(folder / f"{name}.jsonl", 20)
    return Stage(name=name, task=task, data=DataSection(train_file=str(rows)), training=TRAINING)


def move(model: nn.Module, *, seed: int = 1, by: float = 0.02) -> None:
    """Move every learning weight at random, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(by * torch.randn(weight.shape, generator=generator))


def states(model: nn.Module) -> torch.Tensor:
    """Read the last hidden states of two rows of tokens: (2, 8, hidden)."""
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
    with evaluating(model):
        hidden: torch.Tensor = backbone_of(model)(ids, use_cache=False).last_hidden_state
    return hidden.float()
