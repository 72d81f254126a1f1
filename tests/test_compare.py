"""Comparisons: every cell of the grid is a run of its own, run once, and a failure stops no other."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from peftune.cli.main import _exit_code
from peftune.errors import GateError, OutputFolderError, UsageError
from peftune.experiments.compare import Comparison, compare
from peftune.experiments.compare.comparison import few_seeds
from peftune.experiments.compare.summary import baseline_rows, standing_rows
from peftune.experiments.report import check_budget

RECIPE = """\
version: 1
name: grid
model: {name_or_path: tiny-base, max_length: 32}
data:
  dataset_name: bundled:posts
  max_train_examples: 32
  max_validation_examples: 16
  max_test_examples: 16
strategy: {name: lora, r: 2}
training: {max_steps: 2, per_device_train_batch_size: 8}
forgetting:
  probes:
    - {type: lm-loss, file: probe.txt}
compare:
  training:
    head-only: {learning_rate: 1.0e-2}
output_dir: runs/grid
"""
CELLS = ["head-only-seed0", "head-only-seed1", "lora-seed0", "lora-seed1"]


@pytest.fixture(scope="module")
def recipe(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose runs take a second each, beside its base and its probe text."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "tiny-base").symlink_to(tiny_base)
    (folder / "probe.txt").write_text("The sea was calm.\n\nA cat sat by the fire.\n", "utf-8")
    (folder / "grid.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "grid.yaml"


Grid = Callable[..., Comparison]


@pytest.fixture(scope="module")
def grid(recipe: Path) -> Grid:
    """Compare two strategies with two seeds, always in the same folder."""

    def _grid(seeds: Sequence[int] = (0, 1), overrides: Sequence[str] = ()) -> Comparison:
        return compare(
            recipe,
            strategies=["head-only", "lora"],
            seeds=seeds,
            overrides=overrides,
            output=recipe.parent / "out",
        )

    return _grid


@pytest.fixture(scope="module")
def comparison(grid: Grid) -> Comparison:
    """The grid, run."""
    return grid()


def _times(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder
    }


def _reports(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*/report.json"))
    }


@pytest.mark.slow
def test_every_cell_is_a_whole_run_in_a_folder_of_its_own(comparison: Comparison) -> None:
    """Strategy and seed name the folder; each can be read, shared and run again by itself."""
    reports = _reports(comparison.folder)

    assert [run.folder.name for run in comparison.runs] == CELLS
    assert comparison.failures == []
    assert list(reports) == CELLS
    for name, report in reports.items():
        strategy, _, seed = name.rpartition("-seed")
        assert report["status"] == "complete"
        assert (report["run"]["strategy"], report["run"]["seed"]) == (strategy, int(seed))
        for part in ("recipe.yaml", "predictions.jsonl", "adapter/adapter_model.safetensors"):
            assert (comparison.folder / name / part).is_file()


def test_all_cells_see_the_same_rows_and_the_same_base(comparison: Comparison) -> None:
    """Only the strategy and the seed of the training differ."""
    assert len({run.run.data_fingerprint for run in comparison.runs}) == 1
    assert len({run.run.base_fingerprint for run in comparison.runs}) == 1
    assert len({run.run.recipe_sha256 for run in comparison.runs}) == len(CELLS)


def test_a_strategy_has_its_own_training_keys_and_the_recipes_hyper_parameters(
    comparison: Comparison,
) -> None:
    """`compare.training` holds for its strategy alone; `r` holds for the one that has it."""
    written = {
        name: (comparison.folder / name / "recipe.yaml").read_text(encoding="utf-8")
        for name in CELLS
    }

    assert "  learning_rate: 0.01\n" in written["head-only-seed0"]
    assert "  learning_rate: 0.0002\n" in written["lora-seed1"]
    assert comparison.runs[2].run.strategy_config["r"] == 2


def test_the_comparison_file_holds_every_report(comparison: Comparison) -> None:
    """`comparison.json` can be read without the run folders, and names them."""
    path = comparison.folder / "comparison.json"
    values = json.loads(path.read_text(encoding="utf-8"))

    folders = [run.pop("folder") for run in values["runs"]]
    assert folders == CELLS
    assert values["runs"] == list(_reports(comparison.folder).values())
    assert set(values) == {
        "runs",
        "failures",
        "held_equal",
        "budgets",
        "ladder",
        "findings",
        "summary",
    }
    assert (values["failures"], values["held_equal"]) == ([], "examples_seen")
    assert [baseline["name"] for baseline in values["ladder"]] == [
        "majority",
        "tfidf_logistic_regression",
        "linear_probe",
        "few_shot_0",
        "few_shot_4",
        "few_shot_16",
    ]
    assert comparison.summary is not None
    assert values["summary"]["answer"] == comparison.summary.answer


def test_the_table_has_a_column_for_every_strategy(comparison: Comparison) -> None:
    """The same figures stand in the same row for all, and the baselines stand below."""
    assert comparison.summary is not None
    rows = standing_rows(comparison.summary)

    order = [f"{one.strategy}, 2 seeds" for one in comparison.summary.standings]
    assert list(rows[0]) == ["", *order]
    shown = {row[""]: row for row in rows}
    frozen = shown["forgetting, probe"]["head-only, 2 seeds"]
    assert frozen == "+0.0000 (+0.0000, +0.0000)"
    assert repr(comparison).endswith(comparison.summary.answer)
    assert frozen in repr(comparison)
    assert shown["trainable parameters"]["head-only, 2 seeds"] == "192"
    accuracies = [row["accuracy"] for row in baseline_rows(comparison.summary)]
    assert len(accuracies) == 6
    assert all("[" in accuracy for accuracy in accuracies)


def test_all_strategies_of_a_seed_read_the_same_batches(comparison: Comparison) -> None:
    """Proven by the hash of the batches in order; another seed reads them in another one."""
    order = {(run.run.strategy, run.run.seed): run.run.order_sha256 for run in comparison.runs}

    assert order["head-only", 0] == order["lora", 0] != order["lora", 1] == order["head-only", 1]
    assert None not in order.values()


def test_every_run_measured_its_way(comparison: Comparison) -> None:
    """From the base to the tuned model, so that forgetting can be read at equal accuracy."""
    lora = next(run for run in comparison.runs if run.run.strategy == "lora")

    strengths = [point.strength for point in lora.forgetting.path if point.step is None]
    assert strengths == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.slow
def test_several_jobs_give_the_same_numbers(
    comparison: Comparison, recipe: Path, tmp_path: Path
) -> None:
    """Two runs at once compute what each computes alone."""
    both = compare(recipe, strategies=["head-only", "lora"], seeds=[0], output=tmp_path, jobs=2)

    alone = [run for run in comparison.runs if run.run.seed == 0]
    assert [run.learning for run in both.runs] == [run.learning for run in alone]
    assert [list(run.forgetting.path) for run in both.runs] == [
        list(run.forgetting.path) for run in alone
    ]


def test_no_job_at_all_is_refused(recipe: Path, tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError) as caught:
        compare(recipe, strategies=["lora"], seeds=[0], output=tmp_path, jobs=0)

    assert str(caught.value) == "At least one run at a time (got 0 jobs)."


def test_a_second_call_runs_nothing(
    comparison: Comparison, grid: Grid, caplog: pytest.LogCaptureFixture
) -> None:
    """What has finished is read: no file of any run is written again.

    That two seeds cannot tell is said first, before a run would begin.
    """
    before = _times(comparison.folder)

    with caplog.at_level(logging.INFO, logger="peftune.experiments.compare"):
        again = grid()

    assert caplog.messages[0] == few_seeds(2)

    assert _times(comparison.folder) == before
    assert [run.as_json() for run in again.runs] == [run.as_json() for run in comparison.runs]


@pytest.mark.slow
def test_pages_that_a_stopped_run_did_not_write_are_written(
    comparison: Comparison, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was stopped after its report.json counts as finished; its pages come with the next call."""
    pages = [comparison.folder / CELLS[0] / f"report.{kind}" for kind in ("html", "md", "csv")]
    before = [page.read_bytes() for page in pages]
    for page in pages[:2]:
        page.unlink()

    code = _exit_code(
        [
            *("compare", str(recipe), "--strategies", "head-only,lora", "--seeds", "0,1"),
            *("--output", str(comparison.folder)),
        ]
    )

    assert code == 0, capsys.readouterr().err
    assert [page.read_bytes() for page in pages] == before


def test_a_comparison_of_other_values_is_refused_before_anything_runs(
    comparison: Comparison, grid: Grid
) -> None:
    """A grid is never a mixture of two recipes."""
    before = _times(comparison.folder)

    with pytest.raises(OutputFolderError) as caught:
        grid(overrides=["training.max_steps=3"])

    assert str(caught.value) == (
        f"'{comparison.folder / CELLS[0]}' already holds another run (its recipe.yaml differs "
        "from this one). Choose another folder with --output, or remove it."
    )
    assert _times(comparison.folder) == before


@pytest.mark.slow
def test_a_failing_cell_is_told_and_stops_no_other(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others finish, the table shows them, the failure has its reason, and the code is 1."""
    code = _exit_code(
        [
            *("compare", str(recipe), "compare.training.lora.learning_rate=1e30"),
            *("--strategies", "lora,head-only", "--seeds", "0", "--output", str(tmp_path)),
        ]
    )

    out = capsys.readouterr().out
    values = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert code == 1
    assert [run["folder"] for run in values["runs"]] == ["head-only-seed0"]
    (failure,) = values["failures"]
    assert (failure["strategy"], failure["seed"]) == ("lora", 0)
    assert failure["message"].endswith("Lower training.learning_rate, or check the data.")
    assert out.splitlines()[0].strip() == "head-only, 1 seed"
    assert f"lora, seed 0 failed: {failure['message']}\n" in out
    assert _reports(tmp_path)["lora-seed0"]["status"] == "failed"


def test_every_run_over_the_budget_is_told(grid: Grid) -> None:
    """The budget is a gate of a comparison as it is of a run, and each run that fails it is named."""
    runs = grid().runs
    least = min(run.forgetting["probe"].forgetting for run in runs)

    check_budget(runs, None)
    check_budget(runs, 10.0)
    with pytest.raises(GateError) as failed:
        check_budget(runs, least - 1.0)

    told = str(failed.value).splitlines()
    assert len(told) == len(runs)
    for run, line in zip(runs, told, strict=True):
        assert line == (
            f"Forgetting on 'probe' is {run.forgetting['probe'].forgetting:+.4f} bits per byte, "
            f"over the budget of {least - 1.0:g}. The run is kept in '{run.folder}'."
        )
