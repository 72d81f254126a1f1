"""Runs that a program starts from a `Recipe` of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import peftune
from peftune.recipe.schema import DataSection, ForgettingSection, ModelSection
from peftune.recipe.training import TrainingSection


def test_a_recipe_made_in_python_names_files_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run can be called again, and its `recipe.yaml` finds the same files from anywhere."""
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(20)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    Path("files").mkdir()
    Path("files/rows.jsonl").write_text(lines, encoding="utf-8")
    Path("files/probe.txt").write_text("A cat sat by the fire all day.", encoding="utf-8")
    recipe = peftune.Recipe(
        version=1,
        name="made",
        model=ModelSection(max_length=16),
        data=DataSection(train_file="files/rows.jsonl"),
        strategy=peftune.HeadOnly(),
        training=TrainingSection(max_steps=1),
        forgetting=ForgettingSection(probes=(peftune.LanguageModelLoss(file="files/probe.txt"),)),
        output_dir="runs/made",
    )

    first = peftune.run(recipe)
    report = (first.folder / "report.json").stat().st_mtime_ns
    again = peftune.run(recipe)

    assert (again.folder / "report.json").stat().st_mtime_ns == report
    written = peftune.read_recipe(first.folder / "recipe.yaml")
    assert written.data.train_file == str(tmp_path / "files" / "rows.jsonl")
    assert written.forgetting.probes[0].file == str(tmp_path / "files" / "probe.txt")
