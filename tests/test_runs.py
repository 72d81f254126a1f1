"""Runs that a program starts from a `Recipe` of its own."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

import peftune
from peftune.data.in_memory import kept_rows
from peftune.errors import OutputFolderError
from peftune.experiments.run_folder import claim_folder
from peftune.experiments.run_inputs import Inputs
from peftune.files import lock as lock_module
from peftune.files.lock import owned
from peftune.recipe import Recipe, read_recipe, resolve
from peftune.recipe.schema import DataSection, ForgettingSection, ModelSection
from peftune.recipe.training import TrainingSection
from peftune.training.checkpoints import write_digest

INPUTS = Inputs("recipe", "data", "base", (), "texts", "start")
LEFT = ".recipe.yaml.00000000-999999999-1a2b.partial"
"""What a write on another machine left beside its file."""


@pytest.fixture(scope="module")
def quickstart() -> Recipe:
    """Resolve a shipped recipe."""
    return resolve(read_recipe("quickstart"))


@pytest.mark.slow
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
        forgetting=ForgettingSection(
            probes=(peftune.probes.LanguageModelLoss(file="files/probe.txt"),)
        ),
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
    write_digest(checkpoint, INPUTS.sha256)
    path.write_bytes(whole[: int(share * len(whole))])

    assert claim_folder(tmp_path, quickstart, INPUTS) is None

    assert path.read_bytes() == whole
    assert (checkpoint / "peftune_digest.json").is_file()


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
        write_digest(checkpoint, "another")
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


# One owner

FEW = [
    "data.max_train_examples=16",
    "data.max_validation_examples=8",
    "data.max_test_examples=8",
    "model.max_length=16",
    "forgetting.probes=[]",
]
HOLD = """\
import sys, time
from pathlib import Path
from peftune.files import lock
if sys.argv[2] == "without locks":
    def refuse(handle):
        raise OSError(95, "Operation not supported")
    lock._lock = refuse
with lock.owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Let another process own a folder."""
    begun: list[subprocess.Popen[str]] = []

    def start(folder: Path, how: str = "with locks") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(folder), how]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert (stdout := begun[-1].stdout) is not None
        assert stdout.readline() == "owned\n"
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def _refuse_locks(handle: int) -> None:  # noqa: ARG001 - the signature of what it stands for
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize("how", ["with locks", "without locks"])
def test_a_folder_has_one_owner_until_its_process_ends(
    how: str,
    hold: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The refusal says who it is; a kill gives the folder back, also where the system has no locks."""
    folder = tmp_path / "run"
    owner = hold(folder, how)
    if how == "without locks":
        monkeypatch.setattr(lock_module, "_lock", _refuse_locks)
    since = json.loads((folder / ".lock").read_text(encoding="utf-8"))["since"]

    with pytest.raises(OutputFolderError) as caught, owned(folder):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.wait()

    told = str(caught.value)
    assert told.startswith(
        f"'{folder}' is in use by process {owner.pid} on {platform.node()} since {since} (-c {folder}"
    )
    assert told.endswith("). Wait for it to end, or choose another output folder with --output.")
    assert (folder / ".lock").is_file()
    with owned(folder):
        assert json.loads((folder / ".lock").read_text(encoding="utf-8"))["process"] == os.getpid()
    assert list(folder.iterdir()) == []


def test_without_locks_the_owner_on_another_machine_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody here can tell whether it lives, so the refusal says what to remove if it does not."""
    monkeypatch.setattr(lock_module, "_lock", _refuse_locks)
    record = {"key": "k", "host": "elsewhere", "process": 7, "began": 0.0, "since": "then"}
    (tmp_path / ".lock").write_text(json.dumps({**record, "command": "peftune run x"}))

    with pytest.raises(OutputFolderError) as caught, owned(tmp_path):
        pass

    assert str(caught.value) == (
        f"'{tmp_path}' is in use by process 7 on elsewhere since then (peftune run x). Wait for it "
        f"to end, or remove '{tmp_path / '.lock'}' if it has ended, or choose another output "
        "folder with --output."
    )


@pytest.mark.parametrize("how", ["with locks", "without locks"])
def test_two_threads_do_not_own_a_folder_at_once(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other they may; a folder that was made for nothing is gone again."""
    if how == "without locks":
        monkeypatch.setattr(lock_module, "_lock", _refuse_locks)
    folder = tmp_path / "a" / "b"
    refused: list[str] = []

    def second() -> None:
        try:
            with owned(folder):
                pass
        except OutputFolderError as error:
            refused.append(str(error))

    with owned(folder):
        (thread := threading.Thread(target=second)).start()
        thread.join()
    with owned(folder):
        pass

    assert len(refused) == 1
    assert f"is in use by process {os.getpid()} on" in refused[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_worker_that_outlives_its_process_owns_nothing(tmp_path: Path) -> None:
    """The workers of a DataLoader are forks, which share the open file of the lock."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from peftune.files.lock import owned\n"
        "with owned(Path(sys.argv[1])):\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "        time.sleep(600)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()

    try:
        with owned(tmp_path):
            os.kill(worker, 0)
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.slow
def test_a_run_on_a_live_folder_is_refused_and_writes_nothing(
    hold: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Neither its rows nor a report of its own; when the owner has ended, it runs."""
    rows = Dataset.from_dict({"text": ["x y", "z"] * 8, "label": ["a", "b"] * 8})
    folder = tmp_path / "run"
    owner = hold(folder)

    def run(**more: Any) -> peftune.Run:  # noqa: ANN401 - any argument
        return peftune.run(
            "quickstart",
            strategy="head-only",
            overrides=[*FEW, "training.max_steps=1"],
            output=folder,
            **more,
        )

    for more in ({}, {"data": rows}):
        with pytest.raises(OutputFolderError, match=f"is in use by process {owner.pid} on"):
            run(**more)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    owner.kill()
    owner.wait()

    finished = run()
    assert not (folder / ".lock").exists()
    hold(folder)
    assert run().run == finished.run  # a finished run is read, whoever is there


def _start(verb: str, *arguments: str, cache: Path | None = None) -> subprocess.Popen[str]:
    environment = (
        dict(os.environ) if cache is None else {**os.environ, "PEFTUNE_CACHE": str(cache)}
    )
    return subprocess.Popen(
        [sys.executable, "-m", "peftune", verb, "quickstart", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "compare"])
def test_of_two_commands_on_one_folder_one_works(verb: str, tmp_path: Path) -> None:
    """The other is refused with who holds it, or reads what the first had finished."""
    grid = {
        "run": ["--strategy", "head-only"],
        "compare": ["--strategies", "head-only", "--seeds", "0"],
    }
    arguments = [*grid[verb], "--output", str(tmp_path / "out"), *FEW, "training.max_steps=4"]
    processes = [_start(verb, *arguments) for _ in range(2)]
    told = [process.communicate(timeout=240) for process in processes]
    codes = [process.returncode for process in processes]

    assert 0 in codes, told
    for process, (_, err) in zip(processes, told, strict=True):
        if process.returncode != 0:
            other = processes[1 - processes.index(process)]
            assert process.returncode == 3, err
            assert f"is in use by process {other.pid} on {platform.node()} since" in err
    left = {path.name for path in (tmp_path / "out").rglob("*")}
    assert not {name for name in left if name == ".lock" or name.endswith(".partial")}
    assert ("comparison.json" if verb == "compare" else "report.json") in left


@pytest.mark.slow
def test_four_runs_share_one_cache(tmp_path: Path) -> None:
    """They begin together with an empty cache, all succeed, and their artifacts are equal."""
    arguments = [*FEW[:4], "training.max_steps=2", "--strategy", "lora"]
    processes = [
        _start(
            "run", *arguments, "--output", str(tmp_path / str(number)), cache=tmp_path / "cache"
        )
        for number in range(4)
    ]
    told = [process.communicate(timeout=480) for process in processes]

    assert [process.returncode for process in processes] == [0] * 4, told
    artifacts = [
        {path.name: path.read_bytes() for path in (tmp_path / str(number) / "adapter").iterdir()}
        for number in range(4)
    ]
    assert artifacts[1:] == artifacts[:1] * 3
    assert not list((tmp_path / "cache").rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at the processes in /proc")
@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name
)
def test_the_runs_of_a_comparison_end_with_it(how: signal.Signals, tmp_path: Path) -> None:
    """While two train, with a worker each that prepares batches; and the next comparison works."""
    folder = tmp_path / "out"
    strategies = ["--strategies", "head-only,lora", "--seeds", "0", "--jobs", "2"]
    arguments = [*strategies, "--output", str(folder), *FEW, "training.dataloader_num_workers=1"]
    steps = ["training.max_steps=100000", "training.eval_strategy=steps", "training.eval_steps=2"]
    process = _start("compare", *arguments, *steps)
    _wait(lambda: len(list(folder.glob("*/checkpoints/checkpoint-*"))) >= 2, process)
    children = _descendants(process.pid)
    assert len(children) >= 2

    process.send_signal(how)
    process.communicate(timeout=60)

    if how != signal.SIGKILL:
        assert process.returncode == {signal.SIGTERM: 143, signal.SIGHUP: 129}[how]
        for cell in ("head-only-seed0", "lora-seed0"):
            report = json.loads((folder / cell / "report.json").read_text(encoding="utf-8"))
            assert report["status"] == "interrupted"
    _wait(lambda: not any(map(_is_running, children)), None, seconds=5)
    with owned(folder), owned(folder / "lora-seed0"):
        pass


def _wait(
    until: Callable[[], bool], process: subprocess.Popen[str] | None, seconds: int = 240
) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert process is None or process.poll() is None, process and process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _descendants(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob(f"{process}/task/*/children"):
        for child in map(int, path.read_text(encoding="utf-8").split()):
            found += [child, *_descendants(child)]
    return found


def _is_running(process: int) -> bool:
    """Say whether a process works; one that has ended and is not yet asked for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"
