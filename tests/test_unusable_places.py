"""Folders that cannot be written, and disks that are full: told before training, or nothing lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import peftune
from peftune.cli.main import _exit_code
from peftune.compare import compare
from peftune.errors import BaseModelError, OutputFolderError, StorageError, UsageError
from peftune.files.publish import found_no_room
from peftune.files.remembered import cache_folder
from peftune.models.source import find_base
from peftune.runs.folder import failure_reported
from peftune.tasks.metrics import class_metrics

FEW = {
    "data.max_train_examples": 16,
    "data.max_validation_examples": 8,
    "data.max_test_examples": 8,
    "model.max_length": 16,
    "training.max_steps": 1,
    "forgetting.probes": [
        {"type": "lm-loss", "dataset_name": "bundled:general-text", "max_documents": 2}
    ],
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PEFTUNE_CACHE": "/kept", "XDG_CACHE_HOME": "/shared", "HOME": "/home"}, "/kept"),
        ({"XDG_CACHE_HOME": "/shared", "HOME": "/home"}, "/shared/peftune"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home"}, "/home/.cache/peftune"),
        ({"HOME": "/home"}, "/home/.cache/peftune"),
    ],
    ids=str,
)
def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """Its own variable first, then the one that all programs share, then the home folder."""
    for name in ("PEFTUNE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert cache_folder() == Path(expected)


def test_metrics_make_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of metrics makes its cache folder even where everything is kept in memory."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", "/dev/null/metrics")

    assert class_metrics(np.eye(2), np.arange(2))["accuracy"] == 1.0


def test_a_home_that_is_none_is_done_without(tmp_path: Path) -> None:
    """The run finishes, and one line says what is not kept."""
    program = (
        "import peftune, sys, json\n"
        f"peftune.run('quickstart', overrides={FEW!r}, strategy='head-only', output=sys.argv[1])\n"
    )
    own = ("PEFTUNE_CACHE", "XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR")
    environment = {name: value for name, value in os.environ.items() if name not in own}

    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        env={**environment, "HOME": "/dev/null/x"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "complete"
    assert ended.stderr.count("/dev/null/x") == ended.stderr.count(
        "the base's scores are not cached in '/dev/null/x/.cache/peftune/base-scores': "
        "Not a directory"
    )


@pytest.mark.parametrize(
    "verb",
    [
        peftune.run,
        peftune.tune,
        peftune.fewshot,
        peftune.learning_curve,
        lambda recipe, **more: compare(recipe, strategies=["head-only"], seeds=[0], **more),
    ],
    ids=["run", "tune", "fewshot", "learning-curve", "compare"],
)
def test_an_output_folder_that_cannot_be_written_is_told_before_any_training(
    verb: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, which names the folder; no step was taken."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr("transformers.Trainer.train", _no_training)
    output = tmp_path / "file" / "out"

    with pytest.raises(OutputFolderError) as caught:
        verb("quickstart", overrides=FEW, output=output)

    assert str(caught.value).endswith(
        "/out' cannot be written: Not a directory. Choose another output folder with --output."
    ) or str(caught.value).endswith(
        "head-only-seed0' cannot be written: Not a directory. "
        "Choose another output folder with --output."
    )


def _no_training(*_: object, **__: object) -> None:
    pytest.fail("the training had begun")


def test_a_cache_of_the_hub_that_cannot_be_written_is_not_taken_for_a_hub_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The remedy is another folder, not another connection."""

    def refused(*_: object, **__: object) -> None:
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", "/dev/null/x")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)

    with pytest.raises(BaseModelError) as caught:
        find_base("gpt2")

    assert str(caught.value) == (
        "The base model 'gpt2' cannot be kept in the hub's cache ('/dev/null/x': Not a directory). "
        "Name a folder with room in the environment variable HF_HOME, or use a local folder or "
        "bundled:tiny-gpt2."
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"),
    ],
    ids=str,
)
def test_a_full_disk_is_one_line_whichever_library_wrote(error: Exception, tmp_path: Path) -> None:
    """What had finished stays, and the report says why there is no more."""
    with pytest.raises(StorageError) as caught, failure_reported(tmp_path):
        raise error

    assert str(caught.value) == (
        f"There is no room left to write into '{tmp_path}'. What had finished is kept: make room, "
        "and run the same command again."
    )
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "failed"
    assert not found_no_room(RuntimeError("the loss is no number"))


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit of a file's size stands in for the disk: torch and safetensors meet it alike."""
    program = (
        "from peftune.cli.main import main\n"
        "main(['run', 'quickstart', '--strategy', 'full', '--output', 'run', 'save.dtype=float32',\n"
        " 'data.max_train_examples=16', 'data.max_validation_examples=8',\n"
        " 'data.max_test_examples=8', 'model.max_length=16', 'training.max_steps=1',\n"
        " 'forgetting.probes=[]'])\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )

    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "peftune: There is no room left to write into 'run'. What had finished is kept: "
        "make room, and run the same command again."
    )
    assert "Traceback" not in ended.stderr


def test_a_merge_and_a_rescaled_artifact_ask_for_their_place_first(
    tiny_base: Path, tmp_path: Path
) -> None:
    """As soon as the artifact has been checked, before anything is computed with it."""
    model, _ = peftune.prepare(str(tiny_base), strategy="lora", labels=["a", "b"], use_cpu=True)
    artifact = peftune.save(model, tmp_path / "adapter")
    output = tmp_path / "file" / "out"
    (tmp_path / "file").write_text("", encoding="utf-8")
    told = []
    with pytest.raises(OutputFolderError) as caught:
        peftune.merge(artifact, output)
    told.append(str(caught.value))
    with pytest.raises(OutputFolderError) as caught:
        peftune.rescale(artifact, alpha=0.5, output=output)
    told.append(str(caught.value))

    assert told == 2 * [
        (
            f"'{tmp_path / 'file'}' cannot be written: it is a file. "
            "Choose another output folder with --output."
        )
    ]


IMPOSSIBLE: dict[str, object] = {
    "a number": 3,
    "nothing": None,
    "bytes": b"x",
    "a list": ["x"],
    "empty": "",
    "a long part": "x" * 5000,
    "a long path": "/tmp/" + "x/" * 4000,  # noqa: S108 - it is never made
    "NUL": "/tmp/a\0b",  # noqa: S108
    "a lone surrogate": "/tmp/\ud800",  # noqa: S108
}

TAKES_A_PATH: dict[str, Callable[[Any], object]] = {
    "load": peftune.load,
    "load_many": peftune.load_many,
    "load_many, a value": lambda given: peftune.load_many({"a": given}),
    "prepare": lambda given: peftune.prepare(given, strategy="lora", labels=["a", "b"]),
    "find_base": find_base,
    "run": peftune.run,
    "run, output": lambda given: peftune.run("quickstart", output=given),
    "run, train_file": lambda given: peftune.run(
        "quickstart", overrides={"data.train_file": given, "data.dataset_name": None}
    ),
    "run, base": lambda given: peftune.run(
        "quickstart", overrides={"model.name_or_path": given}, output="/dev/null/x"
    ),
    "read_run": peftune.read_run,
    "read_recipe": peftune.read_recipe,
    "report": peftune.report,
    "forget": lambda given: peftune.forget(given, probes=[]),
    "verify": peftune.verify,
    "merge": lambda given: peftune.merge(given, "/dev/null/x"),
    "inspect": peftune.inspect,
    "diff": lambda given: peftune.diff(given, given),
    "rescale": lambda given: peftune.rescale(given, alpha=0.5, output="/dev/null/x"),
    "evaluate": lambda given: peftune.evaluate(given, file="x.csv"),
    "push": lambda given: peftune.push("/dev/null/x", given),
    "tune": peftune.tune,
    "tune, output": lambda given: peftune.tune("quickstart", output=given),
    "compare": lambda given: compare(given, strategies=["lora"], seeds=[0]),
    "compare, output": lambda given: compare(
        "quickstart", strategies=["lora"], seeds=[0], output=given
    ),
    "fewshot": peftune.fewshot,
    "learning_curve": peftune.learning_curve,
    "plan": peftune.plan,
    "check": peftune.check,
}
_NONE_MEANS_DEFAULT = ("run, output", "tune, output", "compare, output")


@pytest.mark.parametrize("name", TAKES_A_PATH)
def test_what_can_be_no_path_is_refused_by_every_function_in_one_line(name: str) -> None:
    """A wrong type, NUL, and what is longer than a file system allows are faults of usage."""
    for given in IMPOSSIBLE.values():
        if given is None and name in _NONE_MEANS_DEFAULT:
            continue
        with pytest.raises(UsageError) as caught:
            TAKES_A_PATH[name](given)
        message = str(caught.value)
        assert "\n" not in message or name.startswith("run, ")  # a recipe tells all its faults
        assert len(message) < 1000


def test_what_can_be_no_path_is_told_with_what_was_given() -> None:
    """Whose argument, what it is, and what would do."""
    with pytest.raises(UsageError) as caught:
        peftune.load("x" * 5000)
    assert str(caught.value) == (
        f"artifact: '{'x' * 60}…' cannot be a path: a part of it has 5000 bytes, and may have 255. "
        "Give a path that a file system can hold."
    )
    with pytest.raises(UsageError) as caught:
        peftune.load(3)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "artifact: a path or a name is text, such as 'runs/mine' (got int)."
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "x" * 5000],
        ["run", "quickstart", "--output", "x" * 5000],
        ["run", "quickstart", "data.dataset_name=null", f"data.train_file={'x' * 5000}.csv"],
        ["run", "quickstart", f"model.name_or_path=./{'x' * 5000}"],
        ["validate", "x" * 5000],
        ["check", "x" * 5000],
        ["plan", "/tmp/" + "x/" * 4000],  # noqa: S108
        ["report", "x" * 5000],
        ["predict", "x" * 5000, "--text", "a"],
        ["evaluate", "x" * 5000, "--file", "a.csv"],
        ["forget", "x" * 5000],
        ["adapter", "inspect", "x" * 5000],
        ["compare", "quickstart", "--strategies", "lora", "--output", "x" * 5000],
    ],
    ids=lambda arguments: " ".join(one[:12] for one in arguments),
)
def test_a_path_that_is_too_long_is_a_fault_of_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every verb ends with 3 and one line."""
    assert _exit_code(arguments) == 3
    shown = capsys.readouterr().err.splitlines()
    assert len([line for line in shown if "cannot be a path" in line]) == 1
    assert len(shown) == 1
