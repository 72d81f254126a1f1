"""Folders that cannot be written, and disks that are full: told before training, or nothing lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import peftune
from peftune.cli.main import _exit_code
from peftune.errors import (
    BaseModelError,
    OutOfMemoryError,
    OutputFolderError,
    StorageError,
    UsageError,
    out_of_memory,
)
from peftune.experiments.compare import compare
from peftune.experiments.run_folder import failure_reported
from peftune.files.hash_cache import cache_folder
from peftune.files.publishing import replace_file, write_file
from peftune.models.base_files import find_base
from peftune.tasks.single_label import class_metrics
from peftune.training.trainer import ClassifierTrainer

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


@pytest.mark.slow
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
    told = "\n".join(line for line in ended.stderr.splitlines() if line.startswith("peftune:"))
    assert told.count("/dev/null/x") == told.count(
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
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded"),
        (
            RuntimeError("Error while serializing: I/O error: No space left (os error 28)"),
            "No space left on device",
        ),
        (
            RuntimeError(
                "[enforce fail at inline_container.cc:747] . open file failed with strerror: Read-only file system"
            ),
            "Read-only file system",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"),
            "[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0",
        ),
        (
            RuntimeError("basic_ios::clear: iostream error"),
            "basic_ios::clear: iostream error",
        ),
    ],
    ids=str,
)
def test_a_failed_write_is_one_line_whichever_library_wrote(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had finished stays, and the report says why there is no more, in the same words."""
    monkeypatch.setattr("peftune.files.publishing.free_bytes", lambda _: 1 << 30)
    with pytest.raises(StorageError) as caught, failure_reported(tmp_path):
        raise error

    assert str(caught.value).startswith(
        f"'{tmp_path}' could not be written: {told} (1,073,741,824 bytes free). "
        "What had finished is kept: "
    )
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["status"], report["reason"]) == ("failed", str(caught.value))


def write_text(path: Path, content: bytes) -> None:
    """Write as reports are written."""
    replace_file(path, content)


@pytest.mark.parametrize("write", [write_file, write_text])
def test_a_failed_write_tells_the_bytes_needed_and_keeps_the_older_file(
    write: Callable[[Path, bytes], None], small_disk: Path
) -> None:
    """On a disk of 64 KiB; what stands under the name is whole."""
    older = small_disk / "older"
    older.write_text("kept", encoding="utf-8")
    path = older if write is not write_file else small_disk / "new"

    with pytest.raises(StorageError) as caught:
        write(path, bytes(1 << 20))

    assert str(caught.value).startswith(
        f"'{path}' could not be written: No space left on device (1,048,576 bytes needed, "
    )
    assert str(caught.value).endswith(
        " bytes free). What had finished is kept: make room, and run the same command again."
    )
    assert older.read_text(encoding="utf-8") == "kept"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 64 KiB."""
    with disk_of(64 << 10, tmp_path / "disk") as folder:
        yield folder


@contextlib.contextmanager
def disk_of(size: int, folder: Path) -> Iterator[Path]:
    """Mount a file system in memory."""
    folder.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("there is no mount")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root can mount a file system of a chosen size")
    try:
        yield folder
    finally:
        subprocess.run([unmount, "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit of a file's size stands in for the disk: torch and safetensors meet it alike."""
    program = (
        "import resource\n"
        "from peftune.cli.main import main\n"
        "from peftune.findings.texts import _identifier\n"
        "_identifier()\n"  # its library unpacks a file of 68 MB
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
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
    )

    assert ended.returncode == 1, ended.stderr
    line = ended.stderr.splitlines()[-1]
    needed = "[0-9,]+ bytes needed, [0-9,]+ bytes free"
    assert re.fullmatch(
        r"peftune: 'run/checkpoints/checkpoint-1' could not be written: File too large "
        rf"\({needed}\)\. What had finished is kept: make room, and run the same command again\.",
        line,
    )
    assert not list((tmp_path / "run" / "checkpoints").iterdir()), "a part would take up room"
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert f"peftune: {report['reason']}" == line
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_run_that_will_not_fit_is_refused_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that are asked for are those that the run then takes, but for a few small files."""
    changes = {**FEW, "data.max_train_examples": 4, "training.eval_steps": 1}
    changes |= {"training.eval_strategy": "steps", "training.max_steps": 4}
    with disk_of(70 << 20, tmp_path / "small") as disk, monkeypatch.context() as patched:
        patched.setattr(ClassifierTrainer, "training_step", _no_training)
        with pytest.raises(StorageError) as caught:
            peftune.run("quickstart", strategy="full", overrides=changes, output=disk / "run")
        told = re.search(
            r"has ([0-9,]+) bytes free, and this training needs ([0-9,]+): ", str(caught.value)
        )
        assert told is not None, caught.value
        assert not list((disk / "run" / "checkpoints").glob("checkpoint-*"))
        report = json.loads((disk / "run" / "report.json").read_text(encoding="utf-8"))
        assert report["reason"] == str(caught.value)

    free, needed = (int(number.replace(",", "")) for number in told.groups())
    assert free < 70 << 20 < needed
    with disk_of(needed + (4 << 20), tmp_path / "large") as disk:
        peftune.run("quickstart", strategy="full", overrides=changes, output=disk / "run")


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
        peftune.adapters.merge(artifact, output)
    told.append(str(caught.value))
    with pytest.raises(OutputFolderError) as caught:
        peftune.adapters.rescale(artifact, alpha=0.5, output=output)
    told.append(str(caught.value))

    assert told == 2 * [
        (
            f"'{tmp_path / 'file'}' cannot be written: it is a file. "
            "Choose another output folder with --output."
        )
    ]


LIMITED = """
import pathlib, resource, sys
from transformers import TrainerCallback
from peftune.cli.main import main
from peftune.training.trainer import ClassifierTrainer

class Limit(TrainerCallback):
    def on_train_begin(self, *_, **__):
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = used + int(sys.argv[1]) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

build = ClassifierTrainer.__init__

def build_limited(self, **arguments):
    build(self, **arguments)
    self.add_callback(Limit)

ClassifierTrainer.__init__ = build_limited
main(["run", "quickstart", "--strategy", "lora", "--output", "run", "forgetting.probes=[]",
      "training.max_steps=1", "training.per_device_train_batch_size=128",
      "data.max_validation_examples=8", "data.max_test_examples=8"])
"""

NO_MEMORY = (
    "'peftune plan RECIPE' says what a run needs; lower training.per_device_train_batch_size "
    "(with more gradient_accumulation_steps), or set training.activation_checkpointing: true. "
    "What had finished is kept."
)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the memory in use")
@pytest.mark.parametrize("more", [5, 60, 200])
def test_memory_that_runs_out_in_training_is_one_line(more: int, tmp_path: Path) -> None:
    """With so many MB more than the process has when its first step begins."""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(more)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    line = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert line.startswith("peftune: There is not enough memory")
    assert line.endswith(NO_MEMORY)
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert f"peftune: {report['reason']}" == line


@pytest.mark.costly
@pytest.mark.parametrize(
    ("error", "amount"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB."
            ),
            ": 20.00 MiB more could not be had",
        ),
        (MemoryError(), ""),
        (RuntimeError("could not create a primitive"), ""),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_memory_that_runs_out_in_a_forward_is_told_as_such(
    error: Exception,
    amount: str,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the names of the keys that help, from the run and in its report; another fault is not."""

    def exhausted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ClassifierTrainer, "compute_loss", exhausted)
    with pytest.raises(OutOfMemoryError) as caught:
        peftune.run(
            "quickstart",
            overrides={**FEW, "model.name_or_path": str(tiny_base), "forgetting.probes": []},
            output=tmp_path / "run",
        )

    assert str(caught.value) == f"There is not enough memory{amount}. {NO_MEMORY}"
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["reason"] == str(caught.value)
    assert out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


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
    "verify": peftune.adapters.verify,
    "merge": lambda given: peftune.adapters.merge(given, "/dev/null/x"),
    "inspect": peftune.adapters.inspect,
    "diff": lambda given: peftune.adapters.diff(given, given),
    "rescale": lambda given: peftune.adapters.rescale(given, alpha=0.5, output="/dev/null/x"),
    "evaluate": lambda given: peftune.evaluate(given, file="x.csv"),
    "push": lambda given: peftune.adapters.push("/dev/null/x", given),
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


def test_memory_that_runs_out_while_a_base_is_loaded_is_no_fault_of_the_base(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is full would otherwise read as a damaged model."""

    def exhausted(*_: object, **__: object) -> None:
        message = "CUDA out of memory. Tried to allocate 20.00 MiB."
        raise torch.OutOfMemoryError(message)

    monkeypatch.setattr("transformers.GPT2ForSequenceClassification.from_pretrained", exhausted)

    with pytest.raises(OutOfMemoryError, match="MiB more could not be had"):
        peftune.prepare(str(tiny_base), strategy=peftune.LoRA(), labels=["a", "b"])
