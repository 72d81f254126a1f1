"""The shipped JSON schema says what reports hold, of every strategy and of runs that failed."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import peftune
from peftune.cli.main import _exit_code, app
from peftune.errors import PeftuneError
from peftune.experiments.report_file import report_json_schema
from peftune.strategies import STRATEGIES

SHIPPED = Path(peftune.__file__).parent / "experiments" / "report.schema.json"
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
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of one run, with a regularizer and a forgetting curve in it."""
    watch = '{probe: {type: lm-loss, name: watched, dataset_name: "bundled:general-text", split: validation, max_documents: 2}}'
    folder = tmp_path_factory.mktemp("report") / "out"
    changes = ("forgetting.regularizers=[{type: l2-sp}]", f"forgetting.during_training={watch}")
    report_of(tiny_base, folder, *changes)
    return folder


@pytest.fixture(scope="module")
def report(finished: Path) -> dict[str, Any]:
    """Give its report."""
    found: dict[str, Any] = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    return found


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


@pytest.mark.costly
@pytest.mark.parametrize("strategy", sorted(STRATEGIES.names()))
def test_the_report_of_every_strategy_keeps_the_schema(
    strategy: str, tiny_base: Path, tmp_path: Path
) -> None:
    """Written by a real run, with intervals and without."""
    found = report_of(tiny_base, tmp_path / "out", f"strategy={{name: {strategy}}}")

    assert found["status"] == "complete"
    assert faults(found) == []


@pytest.mark.slow
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
    """Another layout, another type, a word that is not a verdict, half an interval."""
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


# Reading a report back


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    """List the places of all values in a JSON value; of a list the first and the last."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1} & set(range(len(value)))):
            yield from _places(value[index], (*path, index))


WRONG: Sequence[Any] = (True, "wrong", -1.5, [[]], {"wrong": []}, None)


@pytest.mark.slow
def test_a_value_of_a_wrong_type_is_never_read_as_a_run(
    finished: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    """Every value of a real report in turn, by values of other types; what is read keeps the schema.

    The others are refused in one line that names the file.
    """
    folder = tmp_path / "run"
    folder.mkdir()
    read = refused = 0
    for place in _places(report):
        if place == ("status",):
            continue  # of a run that has not finished, there is nothing to read
        for value in WRONG:
            changed: Any = copy.deepcopy(report)
            level = changed
            for key in place[:-1]:
                level = level[key]
            level[place[-1]] = value
            (folder / "report.json").write_text(json.dumps(changed), encoding="utf-8")
            message = _refusal(folder)
            if message is None:
                read += 1
                assert faults(changed) == [], (place, value)
                continue
            refused += 1
            assert message.startswith(f"'{folder / 'report.json'}' is "), (place, value)
            assert "\n" not in message
    assert read < refused
    assert refused > 1000
    assert peftune.read_run(finished).learning.n == report["learning"]["n"]


def _refusal(folder: Path) -> str | None:
    try:
        peftune.read_run(folder)
    except PeftuneError as error:
        return str(error)
    return None


def _replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a line less": lambda path: path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2])),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 16),
    "not a number": lambda path: path.write_text('{"status": NaN}'),
    "nested": lambda path: path.write_text("[" * 100_000),
    "a list": lambda path: path.write_text("[]"),
    "other objects": lambda path: path.write_text(
        '{"id": 1, "text": 2, "label": [], "probe": {}}'
    ),
    "a folder": _replaced_by(Path.mkdir),
    "a pipe": _replaced_by(os.mkfifo),
    "a link to itself": _replaced_by(lambda path: path.symlink_to(path.name)),
    "a device": _replaced_by(lambda path: path.symlink_to("/dev/zero")),
}


@pytest.mark.skipif(os.name != "posix", reason="the system has no pipes in folders")
@pytest.mark.parametrize(
    "name", ["report.json", "predictions.jsonl", "texts.jsonl", "documents.jsonl"]
)
@pytest.mark.parametrize("how", BROKEN)
def test_a_damaged_run_folder_is_one_line(
    how: str, name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of `peftune report`, with the code of a fault of usage; nothing hangs, and nothing is written."""
    folder = tmp_path / "run"
    shutil.copytree(
        finished, folder, ignore=shutil.ignore_patterns("checkpoints", "report.[hmc]*")
    )
    BROKEN[how](folder / name)

    code = _exit_code(["report", str(folder)])

    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (3, 1), lines
    assert lines[0].startswith(f"peftune: '{folder}")
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"runs": [{"folder": "../elsewhere"}], "failures": []}',
        '{"runs": [{"folder": 3}], "failures": []}',
        '{"runs": [], "failures": [{"strategy": 1}]}',
        '{"runs": [], "failures": [], "budgets": {"lora": "many"}}',
        '{"runs": [], "failures": [], "held_equal": "nothing"}',
        '{"runs": [], "failures": [], "findings": [{"code": 3}]}',
        "[" * 100_000,
    ],
    ids=lambda content: content[:50],
)
def test_a_damaged_comparison_is_one_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of other types, of another layout, or naming runs outside of its folder."""
    (tmp_path / "comparison.json").write_text(content, encoding="utf-8")

    code = _exit_code(["report", str(tmp_path)])

    [line] = capsys.readouterr().err.splitlines()
    assert code == 3
    assert line.startswith(f"peftune: '{tmp_path / 'comparison.json'}' is damaged (")
