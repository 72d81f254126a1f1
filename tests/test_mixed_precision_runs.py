"""Every entry point in bfloat16 and in float32: the base stays the base, and scores are the artifact's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import peftune
from peftune.adapters.initialization import Initialization, initialize
from peftune.data.task_data import Task, load_task
from peftune.experiments.compare import compare
from peftune.models.architecture import backbone_of
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of, refuse_changed_base
from peftune.recipe import Recipe, read_recipe, resolve
from peftune.training.train import TrainingResult, train

STRATEGIES = ("full", "lora", "lora-8bit", "head-only")
WORDS = {"good": "what a sunny day it was", "bad": "a rainy night, and a cold one"}
RECIPE = """\
version: 1
name: mixed
model: {name_or_path: ./base, max_length: 24}
data: {train_file: train.jsonl, validation_file: validation.jsonl, test_file: test.jsonl}
strategy: {name: lora}
training:
  max_steps: 4
  eval_strategy: steps
  eval_steps: 4
  per_device_train_batch_size: 8
  learning_rate: 5.0e-3
  bf16: true
  use_cpu: true
forgetting:
  probes: [{type: lm-loss, dataset_name: "bundled:general-text", max_documents: 3}]
  path: {strengths: [0.5], checkpoints: true}
tune:
  trials: 2
  space: {training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}
output_dir: out
"""


@pytest.fixture(scope="module")
def recipe(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recipe of a few steps on a base whose biases are not zero."""
    folder = tmp_path_factory.mktemp("entries")
    shutil.copytree(tiny_base, folder / "base")
    for name, first, count in (("train", 0, 32), ("validation", 32, 12), ("test", 44, 12)):
        rows = [
            {"text": f"{number} {WORDS[label]}", "label": label}
            for number in range(first, first + count)
            for label in [("good", "bad")[number % 2]]
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "recipe.yaml"


def check_run(run: peftune.Run, recipe: Path, *, bf16: bool) -> None:
    """The control is exactly zero, and every score is what the artifact gives in float32."""
    assert run.cost.train_dtype == ("bfloat16" if bf16 else "float32")
    assert run.forgetting.controls["adapter_off_forgetting"] == 0.0
    strategy, base = run.run.strategy, str(recipe.parent / "base")
    classifier = peftune.load(
        run.artifact, base=None if strategy == "full" else base, use_cpu=True
    )
    lines = (run.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    task = load_task(read_recipe(recipe).data, "single-label")
    found = classifier.predict(list(task.evaluation[1].texts))
    for row, prediction in zip(rows, found, strict=True):
        assert row["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=1e-5)
    steps = [point for point in run.forgetting.path if point.step is not None]
    [end] = [point for point in run.forgetting.path if point.step is None and point.strength == 1]
    assert [point.step for point in steps] == [4]
    assert steps[0].accuracy == end.accuracy
    assert steps[0].forgetting == pytest.approx(end.forgetting, abs=1e-6)
    probe = read_recipe(recipe).forgetting.probes
    again = peftune.forget(run.artifact, probe, base=base, use_cpu=True)
    # A folder of whole weights has no adapter to switch off.
    assert again.controls["adapter_off_forgetting"] == (None if strategy == "full" else 0.0)
    assert again["general-text"].forgetting == pytest.approx(
        run.forgetting["general-text"].forgetting, abs=1e-6
    )


@pytest.mark.costly
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_in_bfloat16_is_reported_in_float32(
    strategy: str, recipe: Path, tmp_path: Path
) -> None:
    """Its artifact says the same, and `forget` measures the same of it."""
    run = peftune.run(
        recipe, overrides=[f"strategy={{name: {strategy}}}"], output=tmp_path / "run"
    )
    check_run(run, recipe, bf16=True)


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "float32"])
def test_a_comparison_in_either_type_has_no_failed_run(
    bf16: bool, recipe: Path, tmp_path: Path
) -> None:
    """All four strategies, each in a process of its own."""
    comparison = compare(
        recipe,
        strategies=STRATEGIES,
        seeds=[0],
        overrides=[f"training.bf16={str(bf16).lower()}"],
        output=tmp_path / "comparison",
    )

    assert [run.run.strategy for run in comparison.runs] == list(STRATEGIES)
    for run in comparison.runs:
        check_run(run, recipe, bf16=bf16)


def watched(monkeypatch: pytest.MonkeyPatch, module: str) -> list[str]:
    """Look at the base after each training that a module begins."""
    seen: list[str] = []

    def looked_at(model: nn.Module, *args: Any, **kwargs: Any) -> TrainingResult:  # noqa: ANN401 - train's
        result = train(model, *args, **kwargs)
        refuse_changed_base(model)
        seen.append("bfloat16" if result.bf16 else "float32")
        return result

    monkeypatch.setattr(f"{module}.train", looked_at)
    return seen


def tuned(recipe: Path, folder: Path, strategy: str, bf16: str) -> object:
    """Search a learning rate."""
    overrides = [f"training.bf16={bf16}"]
    return peftune.tune(recipe, strategies=[strategy], overrides=overrides, output=folder)


def learning_curve(recipe: Path, folder: Path, strategy: str, bf16: str) -> object:
    """Measure a curve."""
    overrides = [f"training.bf16={bf16}", f"strategy={{name: {strategy}}}"]
    return peftune.learning_curve(recipe, overrides=overrides, output=folder)


ENTRIES: dict[str, tuple[Callable[[Path, Path, str, str], object], str, int]] = {
    "tune": (tuned, "peftune.experiments.tune.trial", 2),
    "learning curve": (learning_curve, "peftune.experiments.learning_curve", 4),
}
FIRST = [(entry, "lora-8bit", "true") for entry in ENTRIES]
OTHERS = [
    (entry, strategy, bf16)
    for entry in ENTRIES
    for strategy in STRATEGIES
    for bf16 in ("true", "false")
    if (entry, strategy, bf16) not in FIRST
]


@pytest.mark.parametrize(
    "case",
    [*FIRST, *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)],
    ids=" ".join,
)
def test_what_trains_by_the_dozen_scores_on_the_base_that_it_was_given(
    case: tuple[str, str, str], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trial and no point of a curve is scored on a base that its training rounded."""
    entry, strategy, bf16 = case
    make, module, count = ENTRIES[entry]
    seen = watched(monkeypatch, module)

    make(recipe, tmp_path / "out", strategy, bf16)

    assert seen == ["bfloat16" if bf16 == "true" else "float32"] * count


def begun(recipe: Path, strategy: str, *overrides: str) -> tuple[nn.Module, Task, Recipe]:
    """Prepare the model of a recipe, with its rows."""
    resolved = resolve(read_recipe(recipe, [f"strategy={strategy}", *overrides]))
    task = load_task(resolved.data, "single-label")
    initial = Initialization.of(resolved, task.labels, base_folder=recipe.parent / "other")
    return initialize(initial), task, resolved


@pytest.mark.parametrize("own_forward", [False, True], ids=["fast path", "own forward"])
def test_an_int8_base_is_validated_in_float32(
    own_forward: bool, recipe: Path, tmp_path: Path
) -> None:
    """The curve of a training in bfloat16 has the loss that the artifact has, also off the fast path."""
    strategy = "{name: lora-8bit, llm_int8_threshold: 0.0}"
    model, task, resolved = begun(recipe, strategy)
    if own_forward:
        backbone_of(model).ln_f.register_forward_hook(lambda *_: None)

    result = train(
        model,
        task,
        resolved.training,
        checkpoints=tmp_path / "checkpoints",
        run_identity="test",
        keep_checkpoints=False,
    )

    refuse_changed_base(model)
    tokenizer = preparation_of(model).tokenizer
    logits = predict_logits(model, tokenizer, task.validation.texts, max_length=24)
    labels = torch.tensor(np.asarray(task.validation.labels))
    expected = float(functional.cross_entropy(torch.tensor(logits), labels))
    [*_, last] = [point for point in result.curve if "validation_loss" in point]
    assert result.bf16
    assert last["step"] == 4
    assert last["validation_loss"] == pytest.approx(expected, abs=1e-6)


def test_a_recipe_says_what_a_training_computes_in_and_nothing_around_it(
    recipe: Path, tmp_path: Path
) -> None:
    """Under somebody's autocast a float32 training is the same to the bit, also off the fast path."""
    learned = []
    for index, around in enumerate((False, True)):
        model, task, resolved = begun(recipe, "{name: lora}", "training.bf16=false")
        backbone_of(model).ln_f.register_forward_hook(lambda *_: None)
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            train(
                model,
                task,
                resolved.training,
                checkpoints=tmp_path / str(index),
                run_identity="test",
                keep_checkpoints=False,
            )
        learned.append([weight.detach() for weight in model.parameters() if weight.requires_grad])

    assert all(torch.equal(*pair) for pair in zip(*learned, strict=True))
