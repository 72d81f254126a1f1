"""In which type a training computes, and that the report says so; test_mixed_precision_runs.py has the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import write_base
from torch import nn

from peftune import read_recipe, run
from peftune.fastpath.products import is_intels, multiplies_bfloat16
from peftune.models.prepare import prepare_model
from peftune.recipe import Recipe, with_strategy
from peftune.strategies.lora import LoRA
from peftune.training import fast_path
from peftune.training.fast_path import forward_restored, uses_bfloat16


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a base whose dropout is on."""
    return str(write_base(tmp_path_factory.mktemp("precision") / "base"))


def recipe_of(base: str, folder: Path, *overrides: str, strategy: str = "lora") -> Recipe:
    """Make a recipe of a few steps."""
    recipe = read_recipe(
        "quickstart",
        [
            f"model.name_or_path={base}",
            "forgetting.probes=[]",
            "data.max_train_examples=48",
            "data.max_validation_examples=20",
            "data.max_test_examples=20",
            "training.max_steps=4",
            "training.eval_strategy=steps",
            "training.eval_steps=2",
            "training.use_cpu=true",
            f"output_dir={folder}",
            *overrides,
        ],
    )
    return with_strategy(recipe, strategy)


def report_of(base: str, folder: Path, *overrides: str, strategy: str = "lora") -> dict[str, Any]:
    """Train, and read what the run says of itself."""
    result = run(recipe_of(base, folder, *overrides, strategy=strategy))
    report: dict[str, Any] = json.loads((result.folder / "report.json").read_text())
    return report


@pytest.mark.slow
def test_float32_and_bfloat16_train_otherwise(base: str, tmp_path: Path) -> None:
    """The same recipe in either type learns nearly the same, and not the same bits."""
    curves = {}
    for bf16 in ("true", "false"):
        folder = tmp_path / bf16
        report = report_of(base, folder, f"training.bf16={bf16}", "training.logging_steps=1")
        assert report["cost"]["train_dtype"] == {"true": "bfloat16", "false": "float32"}[bf16]
        curve = report["learning"]["curve"]
        curves[bf16] = [point["train_loss"] for point in curve if "train_loss" in point]

    assert curves["true"] == pytest.approx(curves["false"], abs=0.05)
    assert curves["true"] != curves["false"]


def test_auto_asks_the_processor_and_the_size(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small backbone stays in float32 everywhere; a large one too, where bfloat16 is not multiplied."""
    model = prepare_model(base, LoRA(), labels=["a", "b"], max_length=64)
    for multiplies in (True, False):
        monkeypatch.setattr(fast_path, "multiplies_bfloat16", lambda found=multiplies: found)
        monkeypatch.setattr(fast_path, "_WORTH_BFLOAT16", 64_000_000)
        assert not uses_bfloat16("auto", model)
        monkeypatch.setattr(fast_path, "_WORTH_BFLOAT16", 1000)
        assert uses_bfloat16("auto", model) == multiplies
    assert uses_bfloat16(True, model)
    assert not uses_bfloat16(False, model)


@pytest.mark.parametrize(
    ("text", "bfloat16", "intels"),
    [
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f avx512_bf16 sse\n", True, True),
        ("vendor_id: AuthenticAMD\nflags: fpu avx512_bf16\nmodel name: GenuineIntel", True, False),
        ("processor: 0\nFeatures\t: fp asimd bf16\n", True, False),
        ("processor: 0\nflags\t\t: fpu avx512f avx512bw\nmodel name: bf16\n", False, False),
        ("", False, False),
    ],
)
def test_a_processor_is_what_linux_says_it_is(
    text: str, bfloat16: bool, intels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X86 names its instructions in one line, ARM in another."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    asked = (multiplies_bfloat16, is_intels)
    for question in asked:
        question.cache_clear()
    try:
        assert [question() for question in asked] == [bfloat16, intels]
    finally:
        for question in asked:
            question.cache_clear()


def test_a_forward_that_stood_before_comes_back() -> None:
    """And none is left where none was."""
    model = nn.Linear(2, 2)
    with forward_restored(model):
        model.forward = torch.zeros_like  # type: ignore[method-assign]
        model._original_forward = None  # type: ignore[assignment]
    assert not {"forward", "_original_forward"} & set(vars(model))

    own = model.forward = torch.ones_like  # type: ignore[method-assign]
    with forward_restored(model):
        model.forward = torch.zeros_like  # type: ignore[method-assign]
    assert model.forward is own
