"""The report of a small real run: every key, every number, every reason."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

import peftune
from peftune.adapters.saving import artifact_bytes
from peftune.errors import GateError, UsageError
from peftune.experiments import Run, read_run
from peftune.experiments.compare.summary import facts_of
from peftune.experiments.forget import forget
from peftune.experiments.report import check_budget
from peftune.experiments.report_file import run_from_json
from peftune.forgetting.results import Heads, Quantization
from peftune.recipe import Recipe, read_recipe, recipe_sha256
from peftune.reporting.contents import Cell, Table
from peftune.reporting.overview import runs_table
from peftune.stats.formats import milliseconds
from peftune.stats.tests import McNemar

RECIPE = """\
version: 1
name: tiny
model: {name_or_path: bundled:tiny-gpt2, max_length: 32}
data:
  dataset_name: bundled:posts
  max_train_examples: 96
  max_validation_examples: 24
  max_test_examples: 60
strategy: {name: lora, r: 2}
training:
  max_steps: 4
  per_device_train_batch_size: 8
  learning_rate: 1.0e-3
  logging_steps: 2
  use_cpu: true
  seed: 5
forgetting:
  probes:
    - {type: lm-loss, dataset_name: bundled:general-text, max_documents: 10}
    - {type: lm-loss, name: one-document, dataset_name: bundled:general-text, max_documents: 1}
output_dir: runs/tiny
"""

KEYS = {
    "": "schema_version peftune_version status run learning forgetting cost findings environment checks",
    "run": "name strategy strategy_config seed base_model base_fingerprint recipe_sha256 data_fingerprint texts_sha256 order_sha256 start_sha256 start",
    "run.strategy_config": "name r lora_alpha lora_dropout target_modules layers_to_transform use_rslora use_dora",
    "learning": "split n accuracy macro_f1 loss metrics ci95 per_label confusion baselines curve reason task significance",
    "learning.significance": "metric without_reading p_value learned",
    "learning.metrics": "balanced_accuracy weighted_f1 micro_f1 mcc roc_auc log_loss",
    "learning.ci95": "accuracy macro_f1 roc_auc",
    "learning.per_label": "negative neutral positive",
    "learning.per_label.*": "precision recall f1 support",
    "learning.baselines": "majority tfidf_logistic_regression",
    "learning.baselines.*": "accuracy macro_f1 right_alone wrong_alone macro_f1_p_value",
    "forgetting": "probes controls verdict reason path stages",
    "forgetting.controls": "adapter_off_forgetting",
    "forgetting.probes[]": "name type metric unit higher_is_better before after forgetting ci95 ci90 margin verdict power kl kl_ci95 mcnemar heads quantization details n_documents n_tokens data_sha256 protocol reason",
    "forgetting.probes[].power": "spread needed_documents enough",
    "forgetting.probes[].details": "nats_per_token_before nats_per_token_after nats_per_token_forgetting perplexity_ratio word_perplexity_before word_perplexity_after base_entropy agreement",
    "forgetting.probes[].protocol": "prefix window windows batch_size batches padding head logits sums aggregation sha256",
    "cost": "train_seconds train_examples_per_second peak_memory_bytes trainable_parameters total_parameters artifact_bytes examples_seen steps train_dtype reason latency_median_ms latency_p95_ms latency_texts latency_device",
    "findings[]": "code severity message advice step",
    "checks": "status rows results lengths cleaned leaked_score",
    "checks.results[]": "code status message advice count rows",
    "checks.lengths": "max_length edges counts median longest truncated",
    "environment": "versions platform device cuda bf16 cpu_capability threads seed_streams dropped_rows dropped_tokens",
    "environment.seed_streams": "head adapter training bootstrap regularizers train_sample",
    "environment.dropped_rows": "train validation test",
}  # fmt: skip
"""The design's table of keys, a `reason` beside whatever may be null; `*` is any key, `[]` any item."""

FREE = (
    "environment.versions",
    "learning.curve[]",
    "checks.rows",
    "checks.results[].rows",
    "checks.lengths.counts",
    "checks.lengths.median",
    "checks.lengths.longest",
    "checks.lengths.truncated",
)
"""Levels whose keys are names of packages, or of what Trainer logs."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a small recipe for four steps."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    return peftune.run(recipe, output=folder / "out")


@pytest.fixture(scope="module")
def report(run: Run) -> dict[str, Any]:
    """Read the report as any other program would."""
    values: dict[str, Any] = json.loads((run.folder / "report.json").read_text())
    return values


def _levels(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401 - any JSON
    """Go through all objects of a JSON value, with their places."""
    if isinstance(value, dict):
        yield place, value
        for key, inner in value.items():
            yield from _levels(inner, f"{place}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _levels(inner, f"{place}[]")


def _expected(place: str) -> set[str]:
    any_key = place.rpartition(".")[0] + ".*"
    return set(KEYS.get(place, KEYS.get(any_key, "")).split())


def test_the_report_has_exactly_the_keys_of_the_schema(report: dict[str, Any]) -> None:
    """At every level: programs that read reports find each key, and no key comes or goes."""
    seen = set()
    for place, level in _levels(report):
        if place not in FREE:
            assert set(level) == _expected(place), place
            seen.add(place)

    assert {place for place in KEYS if "*" not in place} <= seen | {"findings[]"}


def test_the_report_holds_no_number_that_is_none(report: dict[str, Any], run: Run) -> None:
    """No NaN and no infinity: the text is JSON to the letter."""

    def refuse(name: str) -> float:
        message = f"{name} in report.json"
        raise AssertionError(message)

    json.loads((run.folder / "report.json").read_text(), parse_constant=refuse)
    for place, level in _levels(report):
        for key, value in level.items():
            assert not isinstance(value, float) or math.isfinite(value), f"{place}.{key}"


# Facts that are absent, and not unmeasured: a CPU has no CUDA version, a field no value, a rare
# label no step where it began.
NOT_MEASUREMENTS = ("environment", "run", "findings[]", "checks")


def _keys_of_reason(reason: str) -> set[str]:
    """Read `key, key: cause; key: cause`."""
    return {key for part in reason.split("; ") for key in part.partition(": ")[0].split(", ")}


def test_every_null_has_its_reason_beside_it(report: dict[str, Any]) -> None:
    """The reason stands in the same object, or in the nearest one around it, and names the key."""
    nulls = [
        (place, key)
        for place, level in _levels(report)
        if not place.startswith(NOT_MEASUREMENTS)
        for key, value in level.items()
        if value is None and key != "reason"
    ]
    reasons = {place: level["reason"] for place, level in _levels(report) if "reason" in level}

    assert ("forgetting.probes[]", "mcnemar") in nulls
    for place, key in nulls:
        around = max((p for p in reasons if place.startswith(p)), key=len)
        assert reasons[around] is not None, f"{place}.{key}"
        if around.startswith(("cost", "forgetting.probes")):
            assert key in _keys_of_reason(reasons[around])
    [_, single] = report["forgetting"]["probes"]
    assert single["ci95"] is None
    assert (
        "ci95, ci90, kl_ci95, power: 1 document has too little spread for an interval; it takes 10"
        in single["reason"]
    )


def test_a_report_read_back_is_the_run(run: Run, report: dict[str, Any]) -> None:
    """Reading and writing again changes no character of the JSON."""
    again = run_from_json(report, run.folder)

    assert json.loads(json.dumps(again.as_json())) == report
    assert read_run(run.folder).as_json() == again.as_json()
    assert again.learning.accuracy == run.learning.accuracy
    assert again.forgetting["general-text"].forgetting == run.forgetting["general-text"].forgetting
    assert again.artifact == run.artifact == run.folder / "adapter"


def test_the_intervals_read_back_are_those_of_the_run(run: Run) -> None:
    """A pair is a pair, also after it was a JSON list."""
    again = read_run(run.folder)

    assert isinstance(again.forgetting["general-text"].ci90, tuple)

    assert again.forgetting["general-text"] == run.forgetting["general-text"]
    assert again.learning.ci95 == run.learning.ci95


def test_every_part_of_a_probes_result_is_read_back(run: Run, report: dict[str, Any]) -> None:
    """Also those that this run has no use for: an 8-bit base, a head that learned, right or wrong."""
    whole = dataclasses.replace(
        run.forgetting["general-text"],
        heads=Heads(0.02, 0.01),
        quantization=Quantization(1.0, 0.01, 0.03),
        mcnemar=McNemar(3, 1, 0.625),
    )
    values = json.loads(json.dumps(dataclasses.asdict(whole)))
    changed = {**report, "forgetting": {**report["forgetting"], "probes": [values]}}

    assert run_from_json(changed, run.folder).forgetting["general-text"] == whole


def test_the_predictions_are_those_that_were_scored(run: Run, report: dict[str, Any]) -> None:
    """Scikit-learn finds the report's numbers in predictions.jsonl."""
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    names = ["negative", "neutral", "positive"]
    truth, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    probabilities = np.array([[row["probabilities"][name] for name in names] for row in rows])
    learning = report["learning"]

    assert all(set(row) == {"id", "label", "predicted", "probabilities"} for row in rows)
    assert (learning["split"], learning["n"], len(rows)) == ("test", 60, 60)
    assert all(row["id"].startswith("test-") for row in rows)
    assert len({row["id"] for row in rows}) == 60
    assert predicted == [names[index] for index in probabilities.argmax(-1)]
    assert learning["accuracy"] == accuracy_score(truth, predicted)
    assert learning["macro_f1"] == pytest.approx(
        f1_score(truth, predicted, average="macro", labels=names, zero_division=0)
    )
    assert learning["loss"] == pytest.approx(log_loss(truth, probabilities, labels=names))
    assert learning["confusion"] == confusion_matrix(truth, predicted, labels=names).tolist()
    assert sum(entry["support"] for entry in learning["per_label"].values()) == 60


def test_the_latency_of_a_text_is_measured(run: Run, report: dict[str, Any]) -> None:
    """Texts one by one, where the run trained; the table of the report and the csv have it."""
    cost = report["cost"]

    assert 0 < cost["latency_median_ms"] <= cost["latency_p95_ms"]
    assert cost["latency_texts"] == min(32, report["learning"]["n"])
    assert cost["latency_device"] == "cpu"
    assert dict(facts_of(run))["latency, one text"] == (
        f"{cost['latency_median_ms']:.1f} ms (95% below {cost['latency_p95_ms']:.1f} ms)"
    )
    (table,) = runs_table([run])
    assert isinstance(table, Table)
    cells = {row[0].text: row[1] for row in table.rows}
    assert cells["Latency, one text"] == Cell(
        milliseconds(cost["latency_median_ms"]),
        f"95% below {milliseconds(cost['latency_p95_ms'])}, on cpu",
    )


def test_the_costs_are_those_of_the_files_and_of_the_weights(
    run: Run, report: dict[str, Any]
) -> None:
    """Bytes are those of the folder; parameters follow from rank and shapes."""
    cost = report["cost"]
    width, layers, rank, vocabulary, positions, labels = 256, 4, 2, 8192, 256, 3
    # All linear weights: c_attn w -> 3w, c_proj w -> w, c_fc w -> 4w, c_proj 4w -> w.
    updates = layers * rank * width * ((1 + 3) + (1 + 1) + (1 + 4) + (4 + 1))
    backbone = (
        (vocabulary + positions) * width + layers * (12 * width * width + 13 * width) + 2 * width
    )

    assert cost["trainable_parameters"] == updates + labels * width
    assert cost["total_parameters"] == backbone + updates + labels * width
    assert cost["artifact_bytes"] == artifact_bytes(run.artifact)
    assert cost["artifact_bytes"] == sum(path.stat().st_size for path in run.artifact.iterdir())
    assert cost["train_seconds"] > 0
    # 4 steps of 8 rows.
    assert cost["train_examples_per_second"] * cost["train_seconds"] == pytest.approx(32)


def test_forgetting_is_after_minus_before_with_its_control(report: dict[str, Any]) -> None:
    """The sign is fixed (positive is worse), the control is exactly zero."""
    forgetting = report["forgetting"]

    for probe in forgetting["probes"]:
        assert probe["forgetting"] == pytest.approx(probe["after"] - probe["before"], abs=1e-12)
        assert probe["forgetting"] != 0
    assert forgetting["controls"] == {"adapter_off_forgetting": 0.0}
    probe = forgetting["probes"][0]
    assert probe["ci95"][0] < probe["ci90"][0] < probe["forgetting"]
    assert probe["forgetting"] < probe["ci90"][1] < probe["ci95"][1]
    assert 0 < probe["kl_ci95"][0] < probe["kl"] < probe["kl_ci95"][1]


def test_the_artifacts_own_forgetting_is_the_runs(run: Run) -> None:
    """Measured again from the folder alone, on a base loaded anew: the same number."""
    probes = read_recipe(run.folder / "recipe.yaml").forgetting.probes

    found = forget(run.artifact, probes, use_cpu=True)

    for probe in run.forgetting:
        again = found[probe.name]
        assert (again.before, again.after) == (probe.before, probe.after)
        assert again.forgetting == probe.forgetting


def test_the_run_folder_holds_what_the_design_lists(run: Run) -> None:
    """What the design lists, with the texts and documents behind it; nothing half-written."""
    names = {path.name for path in run.folder.iterdir()}

    assert names == {
        "recipe.yaml",
        "report.json",
        "report.html",
        "report.md",
        "report.csv",
        "adapter",
        "predictions.jsonl",
        "texts.jsonl",
        "documents.jsonl",
        "checkpoints",
    }


def test_the_reports_tell_nothing_of_the_machines_folders(run: Run) -> None:
    """A report can be published: no absolute path and no home stands in it."""
    for name in ("report.json", "predictions.jsonl", "recipe.yaml"):
        content = (run.folder / name).read_text()
        assert str(run.folder.parent) not in content
        assert "pytest-of" not in content


@pytest.mark.slow
def test_the_recipe_in_the_folder_repeats_the_run(run: Run, tmp_path: Path) -> None:
    """Every default is filled in; run again it gives the same numbers to the last digit."""
    recipe = read_recipe(run.folder / "recipe.yaml")

    again = peftune.run(run.folder / "recipe.yaml", output=tmp_path / "again")

    assert isinstance(recipe, Recipe)
    assert recipe_sha256(recipe) == run.run.recipe_sha256 == again.run.recipe_sha256
    assert again.run == run.run
    assert again.learning.accuracy == run.learning.accuracy
    assert again.learning.loss == run.learning.loss
    assert [probe.after for probe in again.forgetting] == [p.after for p in run.forgetting]
    assert (again.folder / "predictions.jsonl").read_text() == (
        run.folder / "predictions.jsonl"
    ).read_text()


def test_a_finished_run_is_read_and_not_run_again(run: Run) -> None:
    """The same recipe into the same folder costs nothing and changes nothing."""
    before = (run.folder / "report.json").stat().st_mtime_ns

    again = peftune.run(run.folder / "recipe.yaml", output=run.folder)

    assert again.as_json() == read_run(run.folder).as_json()
    assert (run.folder / "report.json").stat().st_mtime_ns == before


def test_the_artifact_of_a_run_classifies_as_the_run_did(run: Run) -> None:
    """The adapter in the folder gives the probabilities in predictions.jsonl."""
    rows = [
        json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()
    ]
    posts = Path(peftune.__file__).parent / "bundled" / "posts" / "test.jsonl"
    texts = {row["id"]: row["text"] for row in map(json.loads, posts.read_text().splitlines())}

    predictions = peftune.load(run.artifact, use_cpu=True).predict([texts[r["id"]] for r in rows])

    for prediction, row in zip(predictions, rows, strict=True):
        assert prediction.label == row["predicted"]
        assert dict(prediction.probabilities) == pytest.approx(row["probabilities"], abs=1e-6)


@pytest.mark.parametrize("budget", [None, 10.0])
def test_a_budget_that_holds_passes(budget: float | None, run: Run) -> None:
    """Without a budget, and below it, nothing is raised."""
    check_budget([run], budget)


def test_a_budget_that_is_passed_fails_with_the_number(run: Run) -> None:
    """The gate names probe, value, limit and folder, and the exit code is 2."""
    worst = run.forgetting["general-text"]

    with pytest.raises(GateError) as caught:
        check_budget([run], worst.forgetting - 1.0)
    assert str(caught.value).splitlines()[0] == (
        f"Forgetting on 'general-text' is {worst.forgetting:+.4f} bits per byte, over the budget "
        f"of {worst.forgetting - 1.0:g}. The run is kept in '{run.folder}'."
    )
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_a_run_without_probes_says_why_it_knows_nothing(tmp_path: Path) -> None:
    """No probe: null with a reason, and no verdict."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.partition("forgetting:")[0] + "output_dir: runs/tiny\n")

    run = peftune.run(recipe, overrides=["training.max_steps=1"], output=tmp_path / "out")

    assert run.as_json()["forgetting"] == {
        "probes": (),
        "controls": {"adapter_off_forgetting": None},
        "verdict": None,
        "reason": "the recipe has no forgetting.probes",
        "path": (),
        "stages": (),
    }


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    """Reading needs a run that came to its end."""
    with pytest.raises(UsageError) as caught:
        read_run(tmp_path)
    assert str(caught.value) == (
        f"'{tmp_path}' holds no finished run; name the output folder of 'peftune run'."
    )
