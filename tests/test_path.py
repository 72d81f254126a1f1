"""The way from the base to the tuned model, and what a run folder keeps beside its report."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

import peftune
from peftune.errors import OutputFolderError, RecipeError
from peftune.experiments import Run
from peftune.experiments.run_evidence import Evidence, read_evidence
from peftune.files.hash_cache import read_entry, write_entry
from peftune.recipe import read_recipe

RECIPE = """\
version: 1
name: way
model: {name_or_path: bundled:tiny-gpt2, max_length: 32}
data: {dataset_name: bundled:posts, max_train_examples: 48, max_validation_examples: 12, max_test_examples: 30}
strategy: {name: lora, r: 2}
training: {num_train_epochs: 2, per_device_train_batch_size: 8, learning_rate: 5.0e-3, use_cpu: true}
forgetting:
  probes:
    - {type: lm-loss, dataset_name: bundled:general-text, max_documents: 12}
    - {type: cloze, name: last-word, dataset_name: bundled:general-text, max_documents: 12}
  path: {strengths: [0.75, 0.5]}
output_dir: runs/way
"""


def run_of(folder: Path, *overrides: str, strategy: str = "lora") -> Run:
    """Run the recipe with changes, in a folder of its own."""
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    recipe = folder / "recipe.yaml"
    return peftune.run(recipe, overrides=overrides, strategy=strategy, output=folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that measured its way."""
    return run_of(tmp_path_factory.mktemp("way"))


@pytest.fixture(scope="module")
def evidence(run: Run) -> Evidence:
    """The same run with its rows and documents."""
    return read_evidence(run.folder)


@pytest.mark.slow
def test_the_way_begins_at_the_base_and_ends_at_the_reported_model(run: Run) -> None:
    """Strength 0 forgot nothing by definition, strength 1 has the report's own figures."""
    base, *between, end = [point for point in run.forgetting.path if point.step is None]

    assert [point.strength for point in (base, *between, end)] == [0.0, 0.5, 0.75, 1.0]
    assert base.forgetting == {"general-text": 0.0, "last-word": 0.0}
    assert (end.accuracy, end.macro_f1) == (run.learning.accuracy, run.learning.macro_f1)
    assert end.forgetting == {probe.name: probe.forgetting for probe in run.forgetting}


@pytest.mark.slow
def test_a_point_is_what_the_rescaled_artifact_measures(run: Run, tmp_path: Path) -> None:
    """The run's way and `peftune.adapters.rescale` are two ways to the same model."""
    probe = peftune.probes.LanguageModelLoss(dataset_name="bundled:general-text", max_documents=12)
    rescaled = peftune.adapters.rescale(run.artifact, alpha=0.5, output=tmp_path / "half")

    [found] = peftune.forget(rescaled, [probe], use_cpu=True)

    half = next(point for point in run.forgetting.path if point.strength == 0.5)
    assert found.forgetting == pytest.approx(half.forgetting["general-text"], abs=1e-6)
    assert found.forgetting > 0


def test_the_checkpoint_that_was_kept_is_the_reported_model(run: Run) -> None:
    """Each evaluation is a point; one of them is the model that the run kept."""
    checkpoints = [point for point in run.forgetting.path if point.step is not None]
    end = next(p for p in run.forgetting.path if p.step is None and p.strength == 1)

    assert [point.step for point in checkpoints] == [6, 12]
    assert any(
        point.accuracy == end.accuracy and point.forgetting == end.forgetting
        for point in checkpoints
    )
    assert all("path_accuracy" not in point for point in run.learning.curve)


@pytest.mark.slow
def test_measuring_the_way_changes_no_number(run: Run, tmp_path: Path) -> None:
    """Without the way the run gives the same weights, bit for bit, and the same figures."""
    plain = run_of(tmp_path, "forgetting.path=null")

    weights = [(r.artifact / "adapter_model.safetensors").read_bytes() for r in (run, plain)]
    assert weights[0] == weights[1]
    assert len(plain.forgetting.path) == 0
    assert [p.forgetting for p in plain.forgetting] == [p.forgetting for p in run.forgetting]
    assert list(plain.learning.curve) == list(run.learning.curve)


@pytest.mark.slow
def test_scores_of_the_base_that_do_not_repeat_move_every_point(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every point is measured from the base that the report has, not from the cached one."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    run_of(tmp_path, "forgetting.path=null", "training.max_steps=1", strategy="head-only")
    keys = [entry.name for entry in (tmp_path / "cache" / "base-scores").iterdir()]
    for key in keys:
        with np.load(io.BytesIO(read_entry("base-scores", key) or b"")) as arrays:
            values = dict(arrays)
        changed = io.BytesIO()
        np.savez(changed, **{**values, "total": values["total"] + 0.25})
        write_entry("base-scores", key, changed.getvalue())
    assert len(keys) == 2
    (tmp_path / "again").mkdir()

    again = run_of(tmp_path / "again")

    for found, expected in zip(again.forgetting.path, run.forgetting.path, strict=True):
        assert found.forgetting == pytest.approx(expected.forgetting, abs=1e-12)


@pytest.mark.slow
def test_a_strategy_that_trains_no_backbone_has_its_end_alone(tmp_path: Path) -> None:
    """Every strength of it is the same model, and it forgot exactly nothing."""
    alone = run_of(tmp_path, "forgetting.path.checkpoints=false", strategy="head-only")

    [end] = alone.forgetting.path
    assert (end.strength, end.step) == (1.0, None)
    assert end.forgetting == {"general-text": 0.0, "last-word": 0.0}


@pytest.mark.slow
def test_strategies_of_a_seed_read_equal_batches_and_other_seeds_others(
    run: Run, tmp_path: Path
) -> None:
    """Dropout and the adapter's initialization have no say in the order of the rows."""
    (tmp_path / "head").mkdir()
    (tmp_path / "seed").mkdir()
    quick = ("forgetting.probes=[]", "forgetting.path=null")
    head = run_of(tmp_path / "head", *quick, strategy="head-only")
    seed = run_of(tmp_path / "seed", *quick, "training.seed=1", strategy="head-only")

    assert run.run.order_sha256 == head.run.order_sha256
    assert seed.run.order_sha256 != head.run.order_sha256
    assert (run.cost.examples_seen, run.cost.steps) == (96, 12)


def test_documents_give_the_report_again(run: Run, evidence: Evidence) -> None:
    """The sums in the folder are those that the figures were computed from."""
    for probe in run.forgetting:
        found = evidence.documents[probe.name]
        change = (found.after.sum() - found.before.sum()) / found.weight.sum()
        sign = -1 if found.higher_is_better else 1
        assert sign * change == pytest.approx(probe.forgetting, abs=1e-12)
        assert len(found.excerpts) == probe.n_documents
        assert max(map(len, found.excerpts)) <= 200
    assert evidence.rows.names == ("negative", "neutral", "positive")
    assert np.mean(evidence.rows.labels == evidence.rows.predicted) == run.learning.accuracy
    assert len(evidence.rows.texts) == run.learning.n


def test_a_text_with_unusual_ends_of_lines_stays_one_row(evidence: Evidence) -> None:
    """JSON lines end at a line feed; U+2028 and the like are characters of a text."""
    path = evidence.run.folder / "texts.jsonl"
    whole = path.read_text(encoding="utf-8")
    first, *rest = whole.split("\n")
    changed = {**json.loads(first), "text": "one\u2028line\x85still"}
    path.write_text("\n".join([json.dumps(changed, ensure_ascii=False), *rest]), encoding="utf-8")
    try:
        assert read_evidence(evidence.run.folder).rows.texts[0] == "one\u2028line\x85still"
    finally:
        path.write_text(whole, encoding="utf-8")


@pytest.mark.parametrize("name", ["predictions.jsonl", "texts.jsonl", "documents.jsonl"])
def test_a_folder_without_a_part_is_refused_in_one_line(evidence: Evidence, name: str) -> None:
    """What is missing is named, with what to do."""
    path = evidence.run.folder / name
    whole = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(OutputFolderError) as told:
            read_evidence(evidence.run.folder)
    finally:
        path.write_bytes(whole)

    [line] = str(told.value).splitlines()
    assert line.startswith(
        f"'{evidence.run.folder}' is not a whole run folder (FileNotFoundError: "
    )
    assert line.endswith(f"{name}'). Remove it and run it again.")


def test_a_strength_beyond_the_ends_is_refused(tmp_path: Path) -> None:
    """0 and 1 are measured anyway, and there is nothing outside of them."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")

    with pytest.raises(
        RecipeError, match=r"forgetting\.path\.strengths\[0\]: must be less than 1 "
    ):
        read_recipe(tmp_path / "recipe.yaml", ["forgetting.path.strengths=[1.0]"])


def test_a_report_with_a_way_reads_back(run: Run) -> None:
    """What JSON holds of it is all of it."""
    again = peftune.read_run(run.folder)

    assert list(again.forgetting.path) == list(run.forgetting.path)
    told = run.as_json()["forgetting"]["path"]
    assert [dataclasses.asdict(point) for point in again.forgetting.path] == list(told)
