"""The shipped JSON schema says what reports hold, of every strategy and of runs that failed."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import peftune
from peftune.cli.main import app
from peftune.errors import PeftuneError
from peftune.runs.report_schema import report_json_schema
from peftune.strategies import STRATEGIES

SHIPPED = Path(peftune.__file__).parent / "runs" / "report.schema.json"
SCHEMA: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
PROBES = '[{type: lm-loss, dataset_name: "bundled:general-text", max_documents: 10}, {type: lm-loss, name: one, dataset_name: "bundled:general-text", max_documents: 1}]'


def faults(report: dict[str, Any]) -> list[str]:
    """List where a report breaks the shipped schema."""
    validator = Draft202012Validator(SCHEMA)
    part = "Unfinished" if report.get("status") != "complete" else "Run"
    # The part of the `oneOf` that was meant has the message that helps.
    alone = Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]})
    found = [f"{error.json_path}: {error.message}" for error in alone.iter_errors(report)]
    assert validator.is_valid(report) == (not found)
    return sorted(found)


def report_of(base: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """Run a few steps, whether they end well or not, and read what is left."""
    few = [
        f"model.name_or_path={base}",
        "model.max_length=32",
        "data.max_train_examples=24",
        "data.max_validation_examples=12",
        "data.max_test_examples=12",
        f"forgetting.probes={PROBES}",
        "training.max_steps=2",
        "training.logging_steps=1",
        "training.use_cpu=true",
        "compare.training={}",
    ]
    with contextlib.suppress(PeftuneError, KeyboardInterrupt):
        peftune.run("quickstart", overrides=[*few, *overrides], output=folder)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


@pytest.fixture(scope="module")
def report(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give the report of one run, with a regularizer and a forgetting curve in it."""
    watch = '{probe: {type: lm-loss, name: watched, dataset_name: "bundled:general-text", split: validation, max_documents: 2}}'
    return report_of(
        tiny_base,
        tmp_path_factory.mktemp("report") / "out",
        "forgetting.regularizers=[{type: l2-sp}]",
        f"forgetting.during_training={watch}",
    )


def test_the_shipped_schema_is_the_one_of_the_classes() -> None:
    """Who changes what a report holds changes its schema: python tools/write_report_schema.py."""
    assert report_json_schema() == SCHEMA


def test_the_schema_is_one() -> None:
    """It is a JSON schema itself, of one version of the layout."""
    Draft202012Validator.check_schema(SCHEMA)

    for part in ("Run", "Unfinished"):
        assert SCHEMA["$defs"][part]["properties"]["schema_version"]["const"] == 1


def test_every_key_is_required_described_and_no_other_allowed() -> None:
    """A key cannot come, go or stay unexplained by an oversight; two are of a cross-validation alone."""
    for name, definition in SCHEMA["$defs"].items():
        own = {"folds", "test"} if name == "Run" else set()
        assert definition["additionalProperties"] is False, name
        assert definition["required"] == [
            key for key in definition["properties"] if key not in own
        ]
        for key, described in definition["properties"].items():
            assert described.get("description"), f"{name}.{key}"


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.names()))
def test_the_report_of_every_strategy_keeps_the_schema(
    strategy: str, tiny_base: Path, tmp_path: Path
) -> None:
    """Written by a real run, with intervals and without."""
    found = report_of(tiny_base, tmp_path / "out", f"strategy={{name: {strategy}}}")

    assert found["status"] == "complete"
    assert faults(found) == []


def test_a_report_with_a_curve_of_everything_keeps_the_schema(report: dict[str, Any]) -> None:
    """Penalties and forgetting are points of the curve like any other."""
    keys = {key for point in report["learning"]["curve"] for key in point}

    assert {"penalty_l2-sp", "forgetting_watched", "validation_loss", "train_loss"} <= keys
    assert faults(report) == []


def test_the_report_of_a_failed_run_keeps_the_schema(tiny_base: Path, tmp_path: Path) -> None:
    """A run that diverges leaves a reason and no numbers."""
    found = report_of(
        tiny_base, tmp_path / "out", "strategy={name: full}", "training.learning_rate=1.0e+38"
    )

    assert found["status"] == "failed"
    assert faults(found) == []


def test_the_report_of_an_interrupted_run_keeps_the_schema(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that a person stopped."""

    def interrupt(*args: object, **kwargs: object) -> None:  # noqa: ARG001 - an optimizer's step
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.optim.AdamW.step", interrupt)

    found = report_of(tiny_base, tmp_path / "out")

    assert found["status"] == "interrupted"
    assert faults(found) == []


def _objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    """List the places of all objects in a JSON value."""
    if isinstance(value, dict):
        yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _objects(inner, (*path, key))


# Keys here are names of labels, metrics, baselines, packages, seeds, splits or fields.
OPEN = {
    ("run", "strategy_config"),
    ("learning", "metrics"),
    ("learning", "ci95"),
    ("learning", "per_label"),
    ("learning", "baselines"),
    ("learning", "curve"),
    ("forgetting", "controls"),
    ("checks", "rows"),
    ("environment", "versions"),
    ("environment", "seed_streams"),
    ("environment", "dropped_rows"),
}
OPEN_IN_A_PROBE = {"details", "protocol"}
OPEN_IN_LENGTHS = {"counts", "median", "longest", "truncated"}


def test_an_unknown_key_is_refused_wherever_keys_are_fixed(report: dict[str, Any]) -> None:
    """Planted into every object of a real report in turn."""
    places = [
        place
        for place in _objects(report)
        if place[:2] not in OPEN
        and not (len(place) > 3 and place[3] in OPEN_IN_A_PROBE | {"rows"})
        and not (place[:2] == ("checks", "lengths") and place[-1] in OPEN_IN_LENGTHS)
    ]
    assert len(places) >= 9  # the report, its five parts, probes with their power, findings

    for place in places:
        changed = copy.deepcopy(report)
        level = changed
        for key in place:
            level = level[key]
        level["surprise"] = 1
        assert faults(changed), place


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("schema_version",), 2, "$.schema_version: 1 was expected"),
        (("cost", "artifact_bytes"), 1.5, "$.cost.artifact_bytes: 1.5 is not of type 'integer'"),
        (("learning", "loss"), None, "$.learning.loss: None is not of type 'number'"),
        (
            ("forgetting", "verdict"),
            "fine",
            "$.forgetting.verdict: 'fine' is not valid under any of the given schemas",
        ),
        (
            ("learning", "ci95", "accuracy"),
            [0.1],
            "$.learning.ci95.accuracy: [0.1] is not valid under any of the given schemas",
        ),
        (
            ("learning", "curve", 0, "train_loss"),
            None,
            "$.learning.curve[0].train_loss: None is not of type 'number'",
        ),
    ],
)
def test_a_wrong_value_is_refused(
    place: tuple[Any, ...], value: object, fault: str, report: dict[str, Any]
) -> None:
    """Another layout, another type, a word that is no verdict, half an interval."""
    changed: Any = copy.deepcopy(report)
    level = changed
    for key in place[:-1]:
        level = level[key]
    level[place[-1]] = value

    assert faults(changed) == [fault]


@pytest.mark.parametrize("key", ["schema_version", "learning", "findings"])
def test_a_missing_key_is_refused(key: str, report: dict[str, Any]) -> None:
    """What was not measured is null with a reason, and not absent."""
    changed = {name: value for name, value in report.items() if name != key}

    assert faults(changed) == [f"$: '{key}' is a required property"]


def test_the_schema_verb_prints_the_shipped_file() -> None:
    """To the letter, so that it can be saved beside reports."""
    result = CliRunner().invoke(app, ["schema", "--report"])

    assert result.exit_code == 0
    assert result.output == SHIPPED.read_text(encoding="utf-8")
