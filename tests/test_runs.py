"""Runs that a program starts from a `Recipe` of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

import peftune
from peftune.data.in_memory import kept_rows
from peftune.errors import OutputFolderError
from peftune.recipe import Recipe, read_recipe, resolve
from peftune.recipe.schema import DataSection, ForgettingSection, ModelSection
from peftune.recipe.training import TrainingSection
from peftune.runs.folder import claim_folder
from peftune.runs.inputs import Inputs
from peftune.training.checkpoints import seal

INPUTS = Inputs("recipe", "data", "base", (), "texts", "start")
LEFT = ".recipe.yaml.00000000-999999999-1a2b.partial"
"""What a write on another machine left beside its file."""


@pytest.fixture(scope="module")
def quickstart() -> Recipe:
    """Resolve a shipped recipe."""
    return resolve(read_recipe("quickstart"))


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


def test_a_recipe_is_written_once(quickstart: Recipe, tmp_path: Path) -> None:
    """A folder that is claimed again, as at every resume, keeps the very file that it has."""
    claim_folder(tmp_path, quickstart, INPUTS)
    written = (tmp_path / "recipe.yaml").stat()

    claim_folder(tmp_path, quickstart, INPUTS)

    again = (tmp_path / "recipe.yaml").stat()
    assert (again.st_ino, again.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_what_a_killed_write_left_locks_no_folder(quickstart: Recipe, tmp_path: Path) -> None:
    """A folder that holds nothing else is new, and the next run clears it away."""
    (tmp_path / LEFT).write_text("version: 1\nna", encoding="utf-8")

    claim_folder(tmp_path, quickstart, INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]

    (tmp_path / LEFT).write_text("version: 1\nna", encoding="utf-8")
    claim_folder(tmp_path, quickstart, INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_beginning_of_the_same_recipe_is_written_anew(
    share: float, quickstart: Recipe, tmp_path: Path
) -> None:
    """Versions that wrote it in place were killed there; what has finished since is kept."""
    claim_folder(tmp_path, quickstart, INPUTS)
    path = tmp_path / "recipe.yaml"
    whole = path.read_bytes()
    checkpoint = tmp_path / "checkpoints" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    seal(checkpoint, INPUTS.sha256)
    path.write_bytes(whole[: int(share * len(whole))])

    assert claim_folder(tmp_path, quickstart, INPUTS) is None

    assert path.read_bytes() == whole
    assert (checkpoint / "peftune_seal.json").is_file()


@pytest.mark.parametrize("other", ["checkpoint", "recipe"])
def test_the_recipe_of_another_run_is_not_written_over(
    other: str, quickstart: Recipe, tmp_path: Path
) -> None:
    """Half of a recipe may be that of any run: a checkpoint says of which, or another beginning."""
    claim_folder(tmp_path, quickstart, INPUTS)
    path = tmp_path / "recipe.yaml"
    torn = path.read_bytes()[:200]
    if other == "checkpoint":
        (checkpoint := tmp_path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
        seal(checkpoint, "another")
    else:
        torn += b"\nanother: {"
    path.write_bytes(torn)

    with pytest.raises(OutputFolderError, match="holds a run whose recipe cannot be read"):
        claim_folder(tmp_path, quickstart, INPUTS)

    assert path.read_bytes() == torn


def test_rows_from_python_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    """A process that ends while it writes them leaves a folder that the same rows can be put in."""
    rows = Dataset.from_dict({"text": ["x", "y"], "label": ["a", "b"]})
    section, folder = DataSection(train_file="x"), tmp_path / "run"
    (left := folder / ".data.00000000-999999999-1a2b.partial").mkdir(parents=True)
    (left / "dataset_dict.json").write_text("{", encoding="utf-8")

    with kept_rows(rows, section, folder):
        assert (folder / "data" / "dataset_dict.json").is_file()
        assert list((folder / "data" / "train").iterdir())
    stored = {path: path.stat().st_ino for path in (folder / "data").rglob("*")}
    with kept_rows(rows, section, folder):
        assert {path: path.stat().st_ino for path in (folder / "data").rglob("*")} == stored
