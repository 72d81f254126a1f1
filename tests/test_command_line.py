"""The command line: exit codes, one line for each fault, and nothing lost when it is stopped."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import peftune
from peftune.adapters import Classifier
from peftune.cli.main import _exit_code
from peftune.cli.options import seeded
from peftune.experiments import predictions_file
from peftune.recipe import read_recipe
from peftune.recipe.recipe_files import shipped_recipes
from peftune.tasks.base import Prediction

RECIPE = """\
version: 1
name: tiny
model: {name_or_path: bundled:tiny-gpt2, max_length: 32}
data:
  dataset_name: bundled:posts
  max_train_examples: 32
  max_validation_examples: 16
  max_test_examples: 16
strategy: {name: head-only}
training: {max_steps: 2, per_device_train_batch_size: 8}
forgetting:
  probes:
    - {type: lm-loss, file: probe.txt}
output_dir: run
"""
OWN_ROWS = """\
version: 1
name: own
data: {train_file: rows.csv}
strategy: {name: head-only}
output_dir: run
"""
PROBE = "The sea was calm and the boats came home.\n\nA cat sat by the fire all day long.\n"
STRATEGY_NAMES = "full, head-only, lora, lora-8bit"


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two recipes and a probe text, and no hub."""
    _fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def _fill(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "own.yaml").write_text(OWN_ROWS, encoding="utf-8")
    (folder / "probe.txt").write_text(PROBE, encoding="utf-8")


@pytest.fixture
def call(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Call the command line in this process, in the working folder."""
    assert Path.cwd() == workplace

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    def _call(*arguments: str) -> Ended:
        code = _exit_code(list(arguments))
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return _call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which `tiny.yaml` has been run, into `run`."""
    folder = tmp_path_factory.mktemp("finished")
    _fill(folder)
    _, err = (process := _start(folder, "run", "tiny.yaml")).communicate()
    assert process.returncode == 0, err
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _csv(*rows: str, header: str = "text,label") -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def _good_rows(count: int = 40) -> list[str]:
    return [f"text {number},{'ab'[number % 2]}" for number in range(count)]


# Usage.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["runn"],
            "No such command 'runn'. Did you mean 'run'? See 'peftune --help'.",
            id="unknown verb",
        ),
        pytest.param(["run"], "Missing argument 'recipe'. See 'peftune --help'.", id="no recipe"),
        pytest.param(
            ["run", "tiny.yaml", "--color", "red"],
            "No such option: --color. See 'peftune --help'.",
            id="unknown option",
        ),
        pytest.param(
            ["run", "nowhere.yaml"],
            "nowhere.yaml: there is no such recipe file or shipped recipe. "
            f"Available: {', '.join(shipped_recipes())}.",
            id="missing recipe",
        ),
        pytest.param(
            ["run", "tiny.yaml", "--strategy", "lroa"],
            f"Unknown strategy 'lroa'. Did you mean 'lora'? Available: {STRATEGY_NAMES}.",
            id="unknown strategy",
        ),
        pytest.param(
            ["run", "tiny.yaml", "model.length=3"],
            "command line 'model.length=3': model.length: unknown key. "
            "Did you mean 'max_length'? Available: init_from, max_length, name_or_path, revision.",
            id="unknown override",
        ),
        pytest.param(
            ["run", "tiny.yaml", "tiny.yaml"],
            "command line 'tiny.yaml': an override is key=value, such as training.seed=1.",
            id="override without an equals sign",
        ),
        pytest.param(
            ["compare", "tiny.yaml", "--strategies", "lora,lroa"],
            f"Unknown strategy 'lroa'. Did you mean 'lora'? Available: {STRATEGY_NAMES}.",
            id="unknown strategy in a comparison",
        ),
        pytest.param(
            ["compare", "tiny.yaml", "--strategies", ","],
            "--strategies takes values separated by commas (got ',').",
            id="comparison of nothing",
        ),
        pytest.param(
            ["compare", "tiny.yaml", "--seeds", "0,x"],
            "--seeds takes whole numbers separated by commas (got 'x').",
            id="seed that is none",
        ),
        pytest.param(
            ["compare", "tiny.yaml", "--seeds", "0,00"],
            "A comparison needs seeds, each once (got 0, 0).",
            id="seed twice",
        ),
        pytest.param(
            ["compare", "tiny.yaml", "--strategies", "lora,lora"],
            "A comparison needs strategies, each once (got lora, lora).",
            id="strategy twice",
        ),
        pytest.param(
            ["compare", "tiny.yaml", "--seeds", "4294967296"],
            "A seed is a whole number from 0 to 4294967295 (got 4294967296).",
            id="seed too large",
        ),
        pytest.param(
            ["predict", "run/adapter"],
            "predict needs texts: on the command line, in a --file, or one a line from standard "
            "input.",
            id="no texts",
        ),
        pytest.param(
            ["predict", "run/adapter", "x", "--file", "texts.txt"],
            "predict takes texts either from the command line or from a --file, not both.",
            id="texts twice",
        ),
        pytest.param(
            ["predict", "run/adapter", "tiny.yaml"],
            "'tiny.yaml' is a file. Name it with --file, or, if it is a text, give it with --text.",
            id="file as a text",
        ),
        pytest.param(
            ["predict", "run/adapter", "caf\udce9"],
            "The text 'caf\\\\udce9' is not UTF-8. Read it from a file that is.",
            id="text of another encoding",
        ),
        pytest.param(
            ["run", "tiny.yaml", "training.seed=2", "--seed", "1"],
            "--seed is 1, but command line 'training.seed=2' names the seed 2. "
            "Leave one of the two out.",
            id="two seeds",
        ),
        pytest.param(
            ["tune", "tiny.yaml", "training={seed: 2}", "--seed", "1"],
            "--seed is 1, but command line 'training={seed: 2}' names the seed 2. "
            "Leave one of the two out.",
            id="two seeds of a search",
        ),
        pytest.param(
            ["plan", "tiny.yaml", "--seed", "-1"],
            "--seed -1: training.seed: must be greater than or equal to 0 (got -1).",
            id="seed that is none",
        ),
        pytest.param(
            ["predict", "run/adapter", "--text", "x", "--output", "no/such/file"],
            "There is no folder 'no/such' to write 'file' into.",
            id="no folder for the predictions",
        ),
        pytest.param(
            ["predict", "nowhere", "--text", "x"],
            "There is no artifact folder 'nowhere'. "
            "Name a run folder, or the adapter/ or model/ folder in it.",
            id="missing artifact",
        ),
        pytest.param(
            ["forget", "nowhere"],
            "There is no artifact folder 'nowhere'. "
            "Name a run folder, or the adapter/ or model/ folder in it.",
            id="nothing to forget",
        ),
        pytest.param(
            ["recipes", "quickstrat"],
            "Unknown recipe 'quickstrat'. Did you mean 'quickstart'? "
            f"Available: {', '.join(shipped_recipes())}.",
            id="unknown shipped recipe",
        ),
        pytest.param(
            ["recipes", "--copy-to", "here"],
            "--copy-to needs the name of a recipe.",
            id="copy of nothing",
        ),
    ],
)
def test_a_fault_of_usage_is_one_line_and_exit_code_3(
    call: Call, workplace: Path, arguments: list[str], message: str
) -> None:
    """Nothing is printed but the fault, and nothing is left in the working folder."""
    before = _content(workplace)

    ended = call(*arguments)

    assert ended == Ended(3, "", f"peftune: {message}\n")
    assert _content(workplace) == before


def test_without_arguments_the_help_is_shown(call: Call) -> None:
    """Nothing was asked for: exit code 3, and the help says what can be."""
    ended = call()

    assert ended.code == 3
    assert "Usage: peftune [OPTIONS] COMMAND [ARGS]" in ended.out
    assert ended.err == ""


def test_every_fault_of_a_recipe_is_a_line_of_its_own(call: Call, workplace: Path) -> None:
    """Each line begins with the program's name, so that it can be told from a library's."""
    faulty = RECIPE.replace("max_steps: 2", "max_steps: two").replace("name: tiny\n", "")
    (workplace / "tiny.yaml").write_text(faulty, encoding="utf-8")

    ended = call("validate", "tiny.yaml")

    assert ended == Ended(
        3,
        "",
        "peftune: tiny.yaml:9:12: training.max_steps: must be an integer (got 'two').\n"
        "peftune: tiny.yaml: name: this key is missing; it must be given.\n",
    )


# Data.


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        pytest.param(
            _csv(*_good_rows(), header="body,label"),
            [],
            "'rows.csv' has no column 'text'. Available: body, label. "
            "Set data.text_column and data.label_column.",
            id="missing text column",
        ),
        pytest.param(
            _csv(*_good_rows(), header="text,lable"),
            [],
            "'rows.csv' has no column 'label'. Did you mean 'lable'? Available: lable, text. "
            "Set data.text_column and data.label_column.",
            id="missing label column",
        ),
        pytest.param(
            _csv(*_good_rows()),
            ["data.labels=[a, c]"],
            "'rows.csv': unknown label 'b' in rows 1, 3, 5, 7, 9, …. Available: a, c. "
            "Mend data.labels or the rows.",
            id="label that data.labels lacks",
        ),
        pytest.param(
            _csv("x,0", "y,1", "z,2"),
            ["data.labels=[no, yes]"],
            "'rows.csv': unknown label '2' in row 2. Available: no, yes. "
            "Mend data.labels or the rows.",
            id="label id outside the list",
        ),
        pytest.param(
            _csv(*_good_rows(), " ,a", ",b"),
            [],
            "'rows.csv': 2 rows with an empty or missing text, rows 40, 41. "
            "Mend the rows, or set data.empty_text: drop (leave them out) or keep.",
            id="empty text",
        ),
        pytest.param(
            _csv(*_good_rows(), "forgotten,"),
            ["data.labels=[a, b]"],
            "'rows.csv': 1 row without a label, row 40. Add the labels or remove the rows.",
            id="missing label",
        ),
        pytest.param(
            _csv(*(["same,a"] * 9)),
            [],
            "'rows.csv' has one label only: 'a'. A classifier needs at least two; "
            "check data.label_column.",
            id="one class",
        ),
        pytest.param(
            _csv(*(["same,a"] * 9)),
            ["data.labels=[a, b]"],
            "'rows.csv': all 9 rows have the label 'a'. At least two classes must occur; "
            "check the file and data.label_column.",
            id="one class of two",
        ),
    ],
)
def test_rows_that_cannot_be_learned_are_told_by_number(
    call: Call, workplace: Path, content: bytes, overrides: list[str], message: str
) -> None:
    """The file, the rows and the remedy in one line, before anything is trained or written."""
    (workplace / "rows.csv").write_bytes(content)

    ended = call("run", "own.yaml", *overrides)

    assert ended == Ended(3, "", f"peftune: {message}\n")
    assert not (workplace / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "rows.csv",
            b"text,label\nfine,a\ncaf\xe9,b\n",
            "'{path}' is not UTF-8: byte 0xe9 at position 21, line 3. It may be "
            "Windows-1252, which reads 'café' there. Save the file as UTF-8.",
            id="not UTF-8",
        ),
        pytest.param(
            "rows.csv",
            b"",
            "'{path}' is empty; its first line must name the columns.",
            id="empty file",
        ),
        pytest.param(
            "rows.csv",
            _csv("fine,a", "one,too,many"),
            "'{path}' line 3: 3 cells, but 2 columns (text, label): 'one | too | many'. "
            "Put a cell that holds a delimiter or a line end in quotes.",
            id="ragged csv",
        ),
        pytest.param(
            "rows.jsonl",
            b'{"text": "x", "label": "a"}\n["x", "a"]\n',
            "'{path}' line 2 is not a JSON object; each line must be one row such as "
            '{{"text": "...", "label": "..."}}.',
            id="JSON line that is not an object",
        ),
        pytest.param(
            "rows.jsonl",
            b"[" * 100000,
            "'{path}' line 1 is not valid JSON: maximum recursion depth exceeded while decoding "
            "a JSON array from a unicode string.",
            id="JSON nested too deep",
        ),
        pytest.param(
            "rows.json",
            b'"text"',
            "'{path}' must hold a JSON array of objects, one a row.",
            id="JSON that is not an array",
        ),
        pytest.param(
            "rows.xlsx",
            b"PK",
            "'{path}' is of no known kind. Allowed: .csv, .tsv, .json, .jsonl, .parquet, .arrow.",
            id="unknown kind",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_place(
    call: Call, workplace: Path, name: str, content: bytes, message: str
) -> None:
    """The path, the byte or the line, and what is allowed."""
    path = workplace / name
    path.write_bytes(content)

    ended = call("run", "own.yaml", f"data.train_file={name}")

    assert ended == Ended(3, "", f"peftune: {message.format(path=path)}\n")


@pytest.mark.parametrize(
    ("name", "content", "ours", "theirs"),
    [
        pytest.param(
            "rows.jsonl",
            b'{"text": "x", "label": "a"}\n{"text": "x", "label": }\n',
            "'{path}' line 2 is not valid JSON: ",
            "Expecting value: line 1 column 24 (char 23).",
            id="bad JSON line",
        ),
        pytest.param(
            "rows.json",
            b'[{"text": "x"',
            "'{path}' is not valid JSON: ",
            "Expecting ',' delimiter: line 1 column 14 (char 13).",
            id="bad JSON",
        ),
        pytest.param(
            "rows.parquet",
            b"no parquet",
            "'{path}' is not a readable parquet file: ",
            "",
            id="bad parquet",
        ),
    ],
)
def test_a_file_that_its_reader_refuses_is_told_in_the_readers_words(
    call: Call,
    workplace: Path,
    *,
    name: str,
    content: bytes,
    ours: str,
    theirs: str,
) -> None:
    """What a library says of the content follows what we say of the file; one line."""
    path = workplace / name
    path.write_bytes(content)

    ended = call("run", "own.yaml", f"data.train_file={name}")

    assert ended.code == 3
    assert ended.err.startswith(f"peftune: {ours.format(path=path)}")
    assert ended.err.rstrip("\n").endswith(theirs)
    assert ended.err.count("\n") == 1


def test_a_missing_file_is_told(call: Call, workplace: Path) -> None:
    """Where it was looked for is part of the message."""
    ended = call("run", "own.yaml")

    assert ended == Ended(
        3,
        "",
        f"peftune: There is no file '{workplace / 'rows.csv'}'. "
        "A relative path in a recipe starts from the recipe's folder.\n",
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param(
            "forgetting.probes[0].file=nowhere.txt",
            "There is no file '{folder}/nowhere.txt' to read documents from. Check 'file'; "
            "a relative path starts from the recipe.",
            id="missing probe file",
        ),
        pytest.param(
            "model.max_length=1000",
            "max_length must be between 2 and the 256 positions of 'bundled:tiny-gpt2' (got 1000).",
            id="longer than the base has positions",
        ),
        pytest.param(
            "model.name_or_path=./nowhere",
            "There is no folder '{folder}/nowhere'. A base model is a hub id such as gpt2, "
            "a local folder, or bundled:tiny-gpt2.",
            id="missing base folder",
        ),
        pytest.param(
            "model.name_or_path=bundled:gpt2",
            "Nothing called 'bundled:gpt2' is bundled here. Did you mean 'bundled:tiny-gpt2'? "
            "Available: bundled:tiny-gpt2.",
            id="base that is not bundled",
        ),
        pytest.param(
            "data.dataset_name=bundled:post",
            "Nothing called 'bundled:post' is bundled here. Did you mean 'bundled:posts'? "
            "Available: bundled:posts.",
            id="task that is not bundled",
        ),
    ],
)
def test_what_a_recipe_names_is_looked_for_before_anything_is_written(
    call: Call, workplace: Path, override: str, message: str
) -> None:
    """A run that cannot begin leaves no folder behind that would stand in the way of the next."""
    ended = call("run", "tiny.yaml", override)

    assert ended == Ended(3, "", f"peftune: {message.format(folder=workplace)}\n")
    assert not (workplace / "run").exists()


@pytest.mark.parametrize(
    ("override", "asked", "alternatives"),
    [
        pytest.param(
            "model.name_or_path=nobody/no-such-base",
            "the base 'nobody/no-such-base'",
            "a local folder or bundled:tiny-gpt2.",
            id="base",
        ),
        pytest.param(
            "data.dataset_name=nobody/no-such-rows",
            "the data set 'nobody/no-such-rows'",
            "data.train_file or bundled:posts.",
            id="rows",
        ),
        pytest.param(
            "forgetting.probes=[{type: lm-loss, dataset_name: nobody/no-such-text}]",
            "the data set 'nobody/no-such-text'",
            "the probe's file or bundled:general-text.",
            id="probe",
        ),
    ],
)
def test_a_hub_that_cannot_be_reached_is_told_with_the_alternatives(
    call: Call, workplace: Path, override: str, asked: str, alternatives: str
) -> None:
    """Without a connection, one line says what was asked for and what works without one."""
    ended = call("run", "tiny.yaml", override)

    asking, fault = ended.err.splitlines()
    assert (ended.code, ended.out) == (3, "")
    assert asking == f"peftune: asking the hub for {asked}"
    assert "is not a local folder and could not be fetched from the hub (" in fault
    assert fault.endswith(f"Check the name and the connection, or use {alternatives}")
    assert not (workplace / "run").exists()


# Output folders.


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param(
            "holiday",
            "'holiday' is not empty and holds no run. "
            "Choose another output folder with --output, or empty it.",
            id="other files",
        ),
        pytest.param(
            "probe.txt",
            "'probe.txt' is a file. Choose another output folder with --output.",
            id="file",
        ),
        pytest.param(
            "probe.txt/run",
            "'probe.txt/run' cannot be written: Not a directory. "
            "Choose another output folder with --output.",
            id="below a file",
        ),
        pytest.param(
            "broken",
            "'broken' holds a run whose recipe cannot be read (broken/recipe.yaml: a recipe is a "
            "mapping of keys such as 'version: 1'; this file holds none.). "
            "Choose another output folder with --output.",
            id="broken recipe",
        ),
    ],
)
def test_an_output_folder_that_holds_something_else_is_left_alone(
    call: Call, workplace: Path, output: str, message: str
) -> None:
    """Nothing in it is changed, not even by a file beside the others."""
    for name in ("holiday/photo.jpg", "broken/recipe.yaml"):
        (workplace / name).parent.mkdir()
        (workplace / name).write_text("mine", encoding="utf-8")
    before = _content(workplace)

    ended = call("run", "tiny.yaml", "--output", output)

    assert ended == Ended(3, "", f"peftune: {message}\n")
    assert _content(workplace) == before


@pytest.mark.slow
def test_another_run_is_not_overwritten(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run of other values keeps every byte."""
    monkeypatch.chdir(finished)
    before = _content(finished)

    ended = call("run", "tiny.yaml", "training.seed=1")

    assert ended == Ended(
        3,
        "",
        "peftune: 'run' already holds another run (its recipe.yaml differs from this one). "
        "Choose another folder with --output, or remove it.\n",
    )
    assert _content(finished) == before


def test_a_report_of_another_version_is_told(call: Call, workplace: Path, finished: Path) -> None:
    """What cannot be read is neither taken for a run nor replaced."""
    run = workplace / "run"
    run.mkdir()
    (run / "recipe.yaml").write_bytes((finished / "run" / "recipe.yaml").read_bytes())
    (run / "report.json").write_text('{"status": "complete"}', encoding="utf-8")
    before = _content(workplace)

    ended = call("run", "tiny.yaml")

    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith(
        "peftune: 'run/report.json' is not a report of this version of peftune (KeyError: "
    )
    assert ended.err.endswith("). Choose another folder, or remove this one.\n")
    assert _content(workplace) == before


# Runs.


def test_a_finished_run_is_shown_again_without_running(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command twice computes once and prints the same report."""
    monkeypatch.chdir(finished)
    before = _content(finished / "run")

    ended = call("run", "tiny.yaml", "--json")

    assert (ended.code, ended.err) == (
        0,
        "peftune: 'run' holds this run already, finished; it is not run again\n",
    )
    assert json.loads(ended.out) == json.loads(before["report.json"])
    assert _content(finished / "run") == before


def test_the_table_names_what_was_learned_and_what_was_forgotten(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning and forgetting stand in one table, with the control and the places of the files."""
    monkeypatch.chdir(finished)

    lines = call("run", "tiny.yaml").out.splitlines()

    first_words = [line.split("  ")[0].strip() for line in lines]
    for name in ("accuracy, 16 test rows", "forgetting, probe", "trainable parameters"):
        assert name in first_words
    assert [line.split() for line in lines if "(control)" in line] == [
        ["adapter", "disabled", "(control)", "0.0"]
    ]
    assert lines[-2:] == ["Report: run/report.html", "To share: run/adapter"]


def test_a_run_over_its_budget_fails_its_gate_and_is_kept(call: Call, workplace: Path) -> None:
    """Exit code 2 is for a declared limit: the run is whole, and its report is written."""
    # A budget below zero asks for an improvement, which a frozen backbone cannot give.
    ended = call("run", "tiny.yaml", "forgetting.budget=-0.5")

    assert ended.code == 2
    assert ended.err.splitlines()[-1] == (
        "peftune: Forgetting on 'probe' is +0.0000 bits per byte, over the budget of -0.5. "
        "The run is kept in 'run'."
    )
    report = json.loads((workplace / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "complete"
    assert (workplace / "run" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_a_run_that_diverges_fails_with_1_and_says_so_in_its_report(
    call: Call, workplace: Path
) -> None:
    """A failure while running is not a fault of usage, and leaves its reason behind."""
    ended = call("run", "tiny.yaml", "--strategy", "lora", "training.learning_rate=1e30")

    assert (ended.code, ended.out) == (1, "")
    fault = ended.err.splitlines()[-1]
    assert fault.startswith("peftune: ")
    assert fault.endswith("Lower training.learning_rate, or check the data.")
    report = json.loads((workplace / "run" / "report.json").read_text(encoding="utf-8"))
    assert (report["status"], f"peftune: {report['reason']}") == ("failed", fault)


# Artifacts.


def test_predictions_are_one_json_line_a_text_in_order(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text, label, score and probabilities by label name; the score is the label's probability."""
    monkeypatch.chdir(finished)

    ended = call("predict", "run/adapter", "--text", "what a day", "--text", "é\n—")

    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert (ended.code, ended.err) == (0, "")
    assert [line["text"] for line in lines] == ["what a day", "é\n—"]
    for line in lines:
        assert list(line) == ["text", "label", "score", "probabilities"]
        assert list(line["probabilities"]) == ["negative", "neutral", "positive"]
        assert line["score"] == line["probabilities"][line["label"]]
        assert line["score"] == max(line["probabilities"].values())
        assert sum(line["probabilities"].values()) == pytest.approx(1)


@pytest.fixture
def many(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of more texts than are classified at once, of several lengths."""
    monkeypatch.setattr(predictions_file, "_AT_ONCE", 8)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(finished / "run")
    texts = [f"text {number}, {'again ' * (number % 5)}" for number in range(30)]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return tmp_path


PREDICT = ("predict", "run", "--file", "texts.txt", "--output", "labels.jsonl")


def _failing_at(monkeypatch: pytest.MonkeyPatch, piece: int, error: BaseException) -> None:
    real, pieces = Classifier.predict, itertools.count()

    def failing(self: Classifier, *given: Any, **options: Any) -> list[Prediction]:  # noqa: ANN401
        if next(pieces) == piece:
            raise error
        return real(self, *given, **options)

    monkeypatch.setattr(Classifier, "predict", failing)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.EIO, "Input/output error"), 1)]
)
def test_a_predict_that_was_interrupted_goes_on(  # noqa: PLR0917 - fixtures
    error: BaseException,
    code: int,
    call: Call,
    many: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was written is kept under a name of its own, and the whole is that of one go."""
    assert call(*PREDICT).code == 0
    whole = (many / "labels.jsonl").read_bytes()
    (many / "labels.jsonl").unlink()

    with monkeypatch.context() as patched:
        _failing_at(patched, 2, error)
        ended = call(*PREDICT)

    partial = many / "labels.jsonl.partial"
    assert ended.code == code
    assert f"'{partial.name}' keeps the answers so far" in ended.err + caplog.text
    assert "Traceback" not in ended.err
    assert not (many / "labels.jsonl").exists()
    assert partial.read_bytes() == whole[: partial.stat().st_size]
    assert partial.read_bytes().count(b"\n") == 16

    again = call(*PREDICT)
    assert again.code == 3
    assert again.err.endswith("--resume goes on from there; otherwise remove it.\n")

    with partial.open("ab") as file:
        file.write(whole[partial.stat().st_size :][:30])  # a line that a kill has cut
    with monkeypatch.context() as patched:
        _failing_at(patched, 3, AssertionError("more than the first piece and the last two"))
        assert call(*PREDICT, "--resume").code == 0

    assert (many / "labels.jsonl").read_bytes() == whole
    assert not partial.exists()


@pytest.mark.parametrize("change", ["another text", "another answer", "too many"])
def test_what_another_predict_has_begun_is_not_gone_on_with(
    change: str, call: Call, many: Path
) -> None:
    """Of another file or artifact: told, by the first line that differs, and left as it is."""
    assert call(*PREDICT).code == 0
    partial = many / "labels.jsonl.partial"
    lines = (many / "labels.jsonl").read_bytes().splitlines(keepends=True)
    if change == "another text":
        lines[20] = lines[20].replace(b"text 20", b"text 19")
    elif change == "another answer":
        lines[1] = lines[1].replace(b'"score": 0.', b'"score": 1.')
    else:
        lines.append(lines[-1])
    partial.write_bytes(b"".join(lines))

    ended = call(*PREDICT, "--resume")

    number = {"another text": 21, "another answer": 2, "too many": 31}[change]
    assert ended.code == 3
    assert ended.err.startswith(f"peftune: Line {number} of '{partial.name}' is not what this ")
    assert partial.read_bytes() == b"".join(lines)


@pytest.mark.skipif(os.name != "posix", reason="pipes and permissions of POSIX")
def test_predict_writes_where_the_output_leads(call: Call, many: Path) -> None:
    """To the reader of a pipe, to what a link names, and with the permissions that a file had."""
    os.mkfifo(many / "pipe")
    with subprocess.Popen(["cat", str(many / "pipe")], stdout=subprocess.PIPE) as reader:  # noqa: S607
        assert call(*PREDICT[:-1], "pipe").code == 0
        told, _ = reader.communicate(timeout=60)
    (many / "real.jsonl").touch(mode=0o600)
    (many / "labels.jsonl").symlink_to("real.jsonl")

    assert call(*PREDICT).code == 0

    assert (many / "labels.jsonl").is_symlink()
    assert (many / "real.jsonl").read_bytes() == told
    assert (many / "real.jsonl").stat().st_mode & 0o777 == 0o600
    assert told.count(b"\n") == 30


def test_two_predicts_do_not_write_one_file(call: Call, many: Path) -> None:
    """The second is refused as long as the first writes, also with --resume."""
    from peftune.files.lock import hold

    with (many / "labels.jsonl.partial").open("a+b") as live:
        assert hold(live.fileno())
        for more in ((), ("--resume",)):
            ended = call(*PREDICT, *more)
            assert ended.code == 3
            assert "is being written by another predict" in ended.err


def test_answers_without_a_label_are_alike_too() -> None:
    """Of several labels none may be said, and then there is no score."""
    none: dict[str, object] = {"label": None, "labels": [], "score": None}

    assert predictions_file._alike(none, dict(none))
    assert predictions_file._alike({"score": 0.5}, {"score": 0.5004})
    assert not predictions_file._alike({"score": 0.5}, {"score": 0.51})
    assert not predictions_file._alike(none, {**none, "labels": ["a"]})


def test_resume_needs_a_file_to_go_on_with(call: Call, many: Path) -> None:  # noqa: ARG001 - its folder
    """Texts of the command line are not read again."""
    ended = call("predict", "run", "--text", "x", "--resume")

    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("peftune: --resume goes on with a --file")


PEAK = """
import resource, sys
from peftune.cli.main import _exit_code
assert _exit_code(["predict", "run", "--file", sys.argv[1], "--output", sys.argv[1] + ".out"]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it counts in KiB there")
@pytest.mark.parametrize("ending", [".txt"])
def test_predict_takes_no_more_memory_for_more_texts(ending: str, finished: Path) -> None:
    """Twenty times the texts, in real processes; all at once took more than a kilobyte for each."""
    peaks = {}
    for rows in (2_000, 40_000):
        file = finished / f"{rows}{ending}"
        texts = (f"a day {number} of rain" for number in range(rows))
        if ending == ".jsonl":
            texts = (json.dumps({"text": text}) for text in texts)
        file.write_text(
            "\n".join([*["text"] * (ending == ".csv"), *texts]) + "\n", encoding="utf-8"
        )
        ended = subprocess.run(
            [sys.executable, "-c", PEAK, file.name],
            cwd=finished,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[rows] = int(ended.stdout)
        with (finished / f"{file.name}.out").open("rb") as answers:
            assert sum(1 for _ in answers) == rows

    assert peaks[40_000] - peaks[2_000] < 24 << 10


@pytest.mark.parametrize("verb", ["predict", "forget"])
def test_a_run_folder_stands_for_its_artifact(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The folder that a user has is taken as the one that lies in it."""
    monkeypatch.chdir(finished)
    arguments = {"predict": ["--text", "x"], "forget": ["--probe", "probe.txt", "--json"]}

    ended = call(verb, "run", *arguments[verb])

    assert ended.code == 0, ended.err
    assert ended.out == call(verb, "run/adapter", *arguments[verb]).out


def test_a_probe_that_does_not_exist_is_told(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that looks like a file is not looked for on the hub."""
    monkeypatch.chdir(finished)

    ended = call("forget", "run/adapter", "--probe", "nowhere.txt")

    assert ended == Ended(3, "", "peftune: There is no file 'nowhere.txt'.\n")


def _json_of(ended: Ended) -> Any:  # noqa: ANN401 - anything JSON holds
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_json_output_of_the_measuring_verbs_can_be_parsed(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`evaluate` and `forget` print the same keys as the report."""
    monkeypatch.chdir(finished)
    rows = [{"text": "lovely", "label": "positive"}, {"text": "awful", "label": "negative"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (finished / "rows.jsonl").write_text(lines, encoding="utf-8")
    report = json.loads((finished / "run" / "report.json").read_text(encoding="utf-8"))

    learning = _json_of(call("evaluate", "run/adapter", "--file", "rows.jsonl", "--json"))
    forgetting = _json_of(call("forget", "run/adapter", "--probe", "probe.txt", "--json"))

    assert learning["n"] == 2
    assert set(learning) == {*report["learning"], "findings"}
    assert (learning["findings"], forgetting["findings"]) == ([], [])
    assert forgetting["controls"] == {"adapter_off_forgetting": 0.0}
    assert set(forgetting["probes"][0]) == set(report["forgetting"]["probes"][0])


@pytest.mark.parametrize("verb", ["strategies", "probes", "recipes", "env", "schema"])
def test_json_output_of_the_listing_verbs_can_be_parsed(call: Call, verb: str) -> None:
    """Every table has a form for programs."""
    arguments = [verb] if verb == "schema" else [verb, "--json"]

    assert _json_of(call(*arguments))


def test_a_valid_recipe_is_told_with_what_it_resolves_to(call: Call) -> None:
    """`validate` shows what the strategy's defaults fill in, for people and for programs."""
    ended = call("validate", "tiny.yaml")
    values = _json_of(call("validate", "tiny.yaml", "--json"))

    assert ended == Ended(
        0,
        "tiny.yaml: valid. Strategy head-only, learning rate 0.001, base bundled:tiny-gpt2.\n",
        "",
    )
    assert values["valid"] is True
    assert values["recipe"]["training"]["learning_rate"] == 1e-3


def test_a_shipped_recipe_is_copied_once(call: Call, workplace: Path) -> None:
    """`--copy-to` makes the folder, and never overwrites what was edited there."""
    first = call("recipes", "quickstart", "--copy-to", "mine")
    (workplace / "mine" / "quickstart.yaml").write_text("edited", encoding="utf-8")
    second = call("recipes", "quickstart", "--copy-to", "mine")

    assert first == Ended(0, "Copied to mine/quickstart.yaml\n", "")
    assert second == Ended(
        3,
        "",
        "peftune: 'mine/quickstart.yaml' exists and is not overwritten. Choose another folder.\n",
    )
    assert (workplace / "mine" / "quickstart.yaml").read_text(encoding="utf-8") == "edited"


# Real processes.


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "peftune", *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs deaf to SIGINT, and their children inherit that.
        preexec_fn=_hear_interrupts,  # noqa: PLW1509 - no threads matter before exec
    )


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_process_ends_with_the_code_and_no_traceback(workplace: Path) -> None:
    """What the tests above call in this process is what a shell gets."""
    out, err = (process := _start(workplace, "run", "nowhere.yaml")).communicate()

    assert (process.returncode, out) == (3, "")
    assert err.startswith("peftune: nowhere.yaml: there is no such recipe file")
    assert err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_of_another_encoding_is_no_fault(workplace: Path, encoding: str) -> None:
    """What the encoding lacks is printed as a question mark, in help, tables and recipes alike."""
    recipe = shipped_recipes()["quickstart"].read_text(encoding="utf-8")
    (workplace / "tiny.yaml").write_text(f"# Gefühle … 😀\n{recipe}", encoding="utf-8")
    program = (
        "import sys\n"
        "from peftune.cli import console, main\n"
        "console.print_every_character()\n"
        "from peftune.cli.main import _exit_code\n"
        "console.print_rows([{'text': 'Gefühle … 😀'}], as_json=False)\n"
        "console.print_facts('Gefühle … 😀', [('text', 'Gefühle … 😀')])\n"
        "console.print_json({'text': 'Gefühle … 😀'})\n"
        "for arguments in (['--help'], ['run', '--help'], ['strategies'], ['recipes']):\n"
        "    assert _exit_code(arguments) == 0\n"
        "sys.exit(_exit_code(['validate', 'tiny.yaml', 'name=Gefühle']))\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=workplace,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )

    out, err = ended.stdout.decode(encoding), ended.stderr.decode(encoding)
    shown = "Gefühle … 😀".encode(encoding, errors="replace").decode(encoding)
    assert ended.returncode == 3, err
    assert "Traceback" not in err
    assert err.startswith("peftune: command line 'name=Gef")
    assert out.count(shown) == 3
    start = out.index("{")
    assert json.loads(out[start : out.index("}") + 1]) == {"text": "Gefühle … 😀"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["schema"], ["recipes"], ["--version"]], ids=str
)
def test_a_reader_that_went_away_ends_the_command_in_silence(
    workplace: Path, arguments: list[str]
) -> None:
    """Neither a traceback nor Python's complaint at its end: `peftune … | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)

    ended = subprocess.run(
        [sys.executable, "-m", "peftune", *arguments],
        cwd=workplace,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_console_that_is_closed_is_no_fault(workplace: Path) -> None:
    """Python has no standard output at all then: `peftune recipes >&-`."""
    command = f"{sys.executable} -m peftune recipes --json >&-"

    ended = subprocess.run(
        ["/bin/sh", "-c", command], cwd=workplace, capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_version_is_printed(call: Call) -> None:
    """One line, for a report of a fault."""
    assert call("--version") == Ended(0, f"peftune {peftune.__version__}\n", "")


def test_predict_takes_texts_as_arguments_and_from_standard_input(
    finished: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """The same lines, in order, however the texts come; the run folder stands for its adapter."""
    monkeypatch.chdir(finished)
    texts = ["what a lovely day", "", "Größe … 😀"]
    (finished / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    expected = call("predict", "run", *(word for text in texts for word in ("--text", text)))
    lines = [json.loads(line) for line in expected.out.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert list(lines[0]) == ["text", "label", "score", "probabilities"]

    assert call("predict", "run", "--file", "texts.txt").out == expected.out
    assert call("predict", "run", *texts).out == expected.out
    for arguments in ([], ["-"], ["--file", "-"]):
        content = "\ufeff" + "\r\n".join(texts) + "\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert call("predict", "run", *arguments).out == expected.out

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fine\ncaf\xe9\n")))
    ended = call("predict", "run")
    assert (ended.code, ended.err) == (
        3,
        "peftune: Standard input is not UTF-8: byte 0xe9 in line 2.\n",
    )


@pytest.mark.slow
def test_predict_answers_each_line_before_the_next_one_comes(finished: Path) -> None:
    """A program can talk to it through pipes, line by line, in any encoding of its console."""
    with subprocess.Popen(
        [sys.executable, "-m", "peftune", "predict", "run"],
        cwd=finished,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("what a lovely day", "Größe 😀"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline().decode("ascii"))["text"] == text
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_a_seed_on_the_command_line_is_the_seed_of_the_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--seed 7` is `training.seed=7`; both, where they agree."""
    monkeypatch.chdir(workplace)

    for overrides in ([], ["training.seed=7"]):
        assert read_recipe("tiny.yaml", seeded(overrides, 7)).training.seed == 7


def test_a_reader_that_goes_away_is_no_fault(workplace: Path) -> None:
    """`peftune schema | head` ends quietly."""
    with _start(workplace, "schema") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        err = process.stderr.read()

    assert "Traceback" not in err


@pytest.mark.slow
def test_a_stopped_run_keeps_its_checkpoints_and_goes_on(workplace: Path) -> None:
    """Interrupted, terminated, hung up, then started once more: each time it goes on from before."""
    stepwise = RECIPE.replace("max_steps: 2", "max_steps: 40, eval_strategy: steps, eval_steps: 2")
    (workplace / "tiny.yaml").write_text(stepwise, encoding="utf-8")
    checkpoints = workplace / "run" / "checkpoints"
    steps: list[int] = []

    for number, code, word in (
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ):
        process = _start(workplace, "run", "tiny.yaml")
        steps.append(_wait_for_checkpoint(checkpoints, process, after=max(steps, default=0)))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

        assert (process.returncode, out) == (code, ""), err
        assert err.splitlines()[-1] == (
            f"peftune: {word}; what had finished is kept, and the same command goes on from there."
        )
        assert "Traceback" not in err
        assert max(_whole_checkpoints(checkpoints)) >= steps[-1]
        report = json.loads((workplace / "run" / "report.json").read_text(encoding="utf-8"))
        assert (report["status"], report["reason"]) == (
            "interrupted",
            "interrupted; run the same command again to go on",
        )

    last = max(_whole_checkpoints(checkpoints))
    out, err = (process := _start(workplace, "run", "tiny.yaml")).communicate(timeout=120)

    assert process.returncode == 0, err
    assert f"peftune: resuming from checkpoint-{last}\n" in err
    report = json.loads((workplace / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "complete"
    assert max(point["step"] for point in report["learning"]["curve"]) == 40


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the system has no terminals that hang up")
def test_a_terminal_that_is_closed_ends_a_command(finished: Path) -> None:
    """The code is that of a hang-up, although nothing can be printed any more."""
    import fcntl
    import termios

    ours, theirs = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "peftune", "predict", "run"]
    with subprocess.Popen(
        command,
        cwd=finished,
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,  # noqa: PLW1509 - no threads matter before exec
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(b"what a lovely day\n")
        process.stdin.flush()
        told = b""
        while b"probabilities" not in told:
            told += os.read(ours, 4096)
        os.close(ours)

        code = process.wait(timeout=60)

    assert code == 129


def _ended(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=_hear_interrupts,
    )


def test_a_signal_that_python_loses_is_heard_again(tmp_path: Path) -> None:
    """An exception that comes while an object is cleared away goes nowhere; the signal comes again."""
    program = (
        "import signal, time\n"
        "from peftune.cli.signals import STOPS\n"
        "STOPS.listen()\n"
        "class Cleared:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "Cleared()\n"
        "time.sleep(600)\n"
    )

    ended = _ended(program, tmp_path)

    assert (ended.returncode, ended.stderr) == (143, "")


def test_a_second_signal_ends_what_does_not_end(tmp_path: Path) -> None:
    """Whoever takes long to put itself in order is given two seconds more, with the first code."""
    program = (
        "import signal, time\n"
        "from peftune.cli.signals import STOPS\n"
        "STOPS.listen()\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "finally:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('still in order', flush=True)\n"
        "    time.sleep(600)\n"
    )

    ended = _ended(program, tmp_path)

    assert (ended.returncode, ended.stdout) == (130, "still in order\n")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under `nohup`, and in the background jobs of a shell."""
    program = (
        "import signal\n"
        "from peftune.cli.signals import STOPS\n"
        "for number in (signal.SIGINT, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "STOPS.listen()\n"
        "for number in (signal.SIGINT, signal.SIGHUP):\n"
        "    signal.raise_signal(number)\n"
        "print('goes on')\n"
    )

    ended = _ended(program, tmp_path)

    assert (ended.returncode, ended.stdout) == (0, "goes on\n"), ended.stderr


def _whole_checkpoints(folder: Path) -> list[int]:
    return [
        int(digest.parent.name.rpartition("-")[2])
        for digest in folder.glob("checkpoint-*/peftune_digest.json")
    ]


def _wait_for_checkpoint(folder: Path, process: subprocess.Popen[str], *, after: int) -> int:
    """Wait until a run in training has written a checkpoint beyond a step, and return its step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        newer = [step for step in _whole_checkpoints(folder) if step > after]
        if newer:
            return min(newer)
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"no checkpoint after step {after}: {process.communicate()[1]}")
