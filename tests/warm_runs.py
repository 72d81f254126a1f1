"""Run peftune's commands in forks of a process that has imported everything, amid faults of the disk.

A fork begins at once where a fresh process imports for seconds. The process is started with
`file_faults.c` preloaded, which counts what a command does to the files of a folder, whichever
library does it; at a chosen operation it kills the process or lets the operation fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bases import teach, write_base

SOURCE = Path(__file__).with_name("file_faults.c")
COUNT, KILL, TEAR, FAIL, FAIL_EVER_AFTER, SHORTEN = range(6)
"""What happens at the chosen operation, as in `file_faults.c`."""

TRAINING = "per_device_train_batch_size: 4, learning_rate: 1.0e-3, lr_scheduler_type: constant, logging_steps: 3, use_cpu: true"
"""A point of the training curve is the mean of steps on both sides of a checkpoint."""

ENDINGS = {
    "max-steps": ("max_steps: 4, eval_strategy: steps, eval_steps: 2", ""),
    "epochs": ("num_train_epochs: 2", ""),
    "early-stopping": (
        "num_train_epochs: 4, early_stopping_patience: 1, metric_for_best_model: accuracy",
        "",
    ),
    "budget": (
        "num_train_epochs: 4",
        "  budget: 1.0e-9\n  during_training: {probe: {type: lm-loss, name: watched, file: watched.txt}, over_budget: stop-training}\n",
    ),
}
"""What ends a training, as a recipe says it: more of `training`, and more of `forgetting`.

Of `head-only`, which forgets nothing, the budget stops none.
"""

WATCHED = ("Bread and salt.", "The river rose.")
"""What the base knows by heart, so that a training forgets it."""

RECIPE = """\
version: 1
name: small
model: {{name_or_path: ./base, max_length: 16}}
data:
  train_file: train.jsonl
  validation_file: validation.jsonl
  test_file: test.jsonl
strategy: {{name: {strategy}}}
training: {{{training}}}
forgetting:
  probes:
    - {{type: lm-loss, file: general.txt}}
{forgetting}output_dir: runs/small
"""

HANG = 300
"""Seconds after which a command is taken to hang."""


def why_not() -> str | None:
    """Say what this machine lacks for faults of the disk; None if it has all."""
    if not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return "the library that counts file operations is for 64-bit Linux"
    return None if shutil.which("cc") else "there is no C compiler"


def write_recipe(folder: Path, strategy: str, ending: str) -> Path:
    """Write the recipe of a run of eight steps or fewer beside its rows; see `write_rows`."""
    training, forgetting = ENDINGS[ending]
    path = folder / f"{strategy}-{ending}.yaml"
    path.write_text(
        RECIPE.format(
            strategy=strategy, training=f"{TRAINING}, {training}", forgetting=forgetting
        ),
        encoding="utf-8",
    )
    return path


def read_language_model_once() -> None:
    """Keep the model that py3langid unpacks, which peftune frees before each training."""
    from py3langid.langid import LanguageIdentifier

    LanguageIdentifier.from_model_file = functools.cache(LanguageIdentifier.from_model_file)


def write_rows(folder: Path) -> None:
    """Write a small base, rows of two labels and texts for probes."""
    teach(write_base(folder / "base"), WATCHED)
    words = {"good": "sunny day", "bad": "rainy night"}
    for first, (split, count) in enumerate((("train", 8), ("validation", 4), ("test", 4))):
        rows = [
            {"text": f"{words[label]} {chr(97 + 9 * first + number)}", "label": label}
            for number, label in enumerate(["good", "bad"] * (count // 2))
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "general.txt").write_text(
        "A door fell shut.\fNobody came to look.\n", encoding="utf-8"
    )
    (folder / "watched.txt").write_text("\f".join(WATCHED), encoding="utf-8")


Operation = tuple[str, int, str]
"""What was done to a file: name, bytes and path."""


@dataclass(frozen=True)
class Fault:
    """What happens at one operation on a file."""

    at: int = -1
    action: int = COUNT
    error: int = 0


@dataclass(frozen=True)
class Signal:
    """A signal that a command gets, so many seconds after what came before it."""

    after: float
    number: int


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: exit code; negative: the signal that ended it.
        errors: what it wrote to standard error.
        operations: what it did to the files of the folder.
        seconds: how long it took.
        cpu_seconds: what it computed.
        fired: whether the chosen operation came.
    """

    code: int
    errors: str
    operations: tuple[Operation, ...]
    seconds: float
    cpu_seconds: float
    fired: bool


@dataclass(frozen=True)
class _Order:
    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str] = field(default_factory=dict)
    fault: Fault = Fault()
    signals: Sequence[Signal] = ()


class WarmRuns:
    """A process that has imported everything, and runs commands in forks of itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(
        self,
        *arguments: str | Path,
        folder: Path,
        fault: Fault = Fault(),
        signals: Sequence[Signal] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run `peftune` with these arguments; count and fault what it does below a folder.

        Args:
            arguments: those of the command line.
            folder: where the operations on files are counted.
            fault: what happens at one of them.
            signals: what the process gets.
            environment: more of it.
        """
        order = _Order(
            [str(one) for one in arguments],
            str(folder),
            environment or {},
            fault,
            signals,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(order)), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the warm process ended"
        values = json.loads(answer)
        return Ended(**{**values, "operations": tuple(map(tuple, values["operations"]))})


@contextlib.contextmanager
def warm_runs(work: Path, recipes: Sequence[Path]) -> Iterator[WarmRuns]:
    """Start the process; it runs the recipes once, for what is imported and made on first use."""
    library = work / "file_faults.so"
    subprocess.run(
        [  # noqa: S607 - whichever compiler this is
            "cc",
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-Werror",
            str(SOURCE),
            "-o",
            str(library),
            "-ldl",
        ],
        check=True,
    )
    process = subprocess.Popen(
        [sys.executable, __file__, str(library), str(work / "warm"), *map(str, recipes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library)},
    )
    with process:
        yield WarmRuns(process)
        assert process.stdin is not None
        process.stdin.close()


def _serve(library: ctypes.CDLL, scratch: Path) -> None:
    for line in sys.stdin:
        values = json.loads(line)
        order = _Order(
            values["arguments"],
            values["folder"],
            values["environment"],
            Fault(**values["fault"]),
            [Signal(**one) for one in values["signals"]],
        )
        print(json.dumps(asdict(_carried_out(order, library, scratch))), flush=True)  # noqa: T201 - the answer


def _carried_out(order: _Order, library: ctypes.CDLL, scratch: Path) -> Ended:
    errors = scratch / "stderr"
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(order, library, scratch / "stdout", errors)
    for one in order.signals:
        time.sleep(one.after)
        os.kill(child, one.number)  # not yet waited for, so still that process
    status, cpu_seconds = _waited(child)
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        errors=errors.read_text(encoding="utf-8"),
        operations=tuple(_operations(library.file_faults_log().decode())),
        seconds=time.monotonic() - started,
        cpu_seconds=cpu_seconds,
        fired=bool(library.file_faults_fired()),
    )


def _run(order: _Order, library: ctypes.CDLL, output: Path, errors: Path) -> None:
    """Be the command, and end."""
    for path, stream in ((output, 1), (errors, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 0)
    os.environ.update(order.environment)
    from peftune.cli.main import main

    fault = order.fault
    library.file_faults_arm(order.folder.encode(), fault.at, fault.action, fault.error)
    code = 1
    try:
        main(order.arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as Python itself would end
        sys.excepthook(*sys.exc_info())
    library.file_faults_disarm()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _waited(child: int) -> tuple[int, float]:
    """Wait for a process to end, and end it if it hangs: its status and what it computed."""
    deadline = time.monotonic() + HANG
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return status, usage.ru_utime + usage.ru_stime
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _operations(log: str) -> Iterator[Operation]:
    for line in log.splitlines():
        name, size, path = line.split(" ", 2)
        yield name, int(size), path


def _main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    library.file_faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.file_faults_log.restype = ctypes.c_char_p
    scratch = Path(sys.argv[2])
    scratch.mkdir()
    del os.environ["LD_PRELOAD"]  # for this process alone
    import sklearn
    import torch

    from peftune.cli.main import _exit_code

    torch.set_num_threads(1)  # a fork has no other thread
    # Each takes a tenth of the time of a run this small, and is the same in every one.
    vars(importlib.metadata).update(entry_points=functools.cache(importlib.metadata.entry_points))
    sklearn.set_config(skip_parameter_validation=True)
    read_language_model_once()
    with contextlib.redirect_stdout(sys.stderr):
        for number, recipe in enumerate(sys.argv[3:]):
            _exit_code(["run", recipe, "--output", str(scratch / str(number))])
    gc.collect()
    gc.freeze()
    _serve(library, scratch)


if __name__ == "__main__":
    _main()
