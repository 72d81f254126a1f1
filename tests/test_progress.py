"""What a person sees while something works: bars where somebody watches, lines elsewhere."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
import warnings
from pathlib import Path

import pytest

from peftune.errors import UsageError
from peftune.progress import SECONDS, counted, innermost, stage, working

ROOT = Path(__file__).parent.parent
ALARMS = (
    "gemm_4bit_forward",
    "is_gradient_checkpointing",
    "newly initialized",
    "MatMul8bitLt",
    "pin_memory",
    "mtime may not be reliable",
    "Warning",
)
SLOW = """
import time
from peftune.progress import counted, working

with working("running a recipe"):
    for item in counted(range(8), "reading text", unit="windows"):
        time.sleep(0.4)
print("done")
"""


def environment(**changes: str) -> dict[str, str]:
    """Give the environment of a script."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def test_a_stage_that_takes_longer_than_the_limit_speaks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a terminal there is a line after each interval of silence: what, and how far."""
    monkeypatch.setenv(SECONDS, "0.2")
    caplog.set_level(logging.INFO, logger="peftune")

    with working("running"), stage("measuring the base"):
        for item in counted(range(400), "reading text", unit="documents", count=lambda _: 2):
            if item == 60:
                time.sleep(0.7)

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 2
    for line in lines:
        assert re.fullmatch(
            r"measuring the base, reading text: 120 of 800 documents, [0-2] s", line
        )
    assert innermost() is None


def test_the_limit_is_one_of_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is added where the log speaks by itself."""
    monkeypatch.setenv(SECONDS, "2")
    caplog.set_level(logging.INFO, logger="peftune")

    with working("running"):
        for _ in range(6):
            logging.getLogger("peftune.experiments").info("of itself")
            time.sleep(0.5)

    assert {record.getMessage() for record in caplog.records} == {"of itself"}


def test_a_script_gets_lines_on_stderr() -> None:
    """Nobody has set up a log: the logger `peftune` speaks all the same, and stdout stays its own."""
    ended = subprocess.run(
        [sys.executable, "-c", SLOW],
        env=environment(**{SECONDS: "0.5"}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert ended.stdout == "done\n"
    lines = ended.stderr.splitlines()
    assert len(lines) >= 2
    for line in lines:
        assert re.fullmatch(r"peftune: reading text: \d of 8 windows, \d+ s", line) or (
            line == "peftune: reading text: 0 s"
        )


def test_a_script_can_switch_it_off() -> None:
    """By the level of the logger, as for any library."""
    quiet = 'import logging\nlogging.getLogger("peftune").setLevel("WARNING")\n'
    ended = subprocess.run(
        [sys.executable, "-c", quiet + SLOW],
        env=environment(**{SECONDS: "0.5"}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert (ended.stdout, ended.stderr) == ("done\n", "")


def test_a_terminal_gets_a_bar() -> None:
    """The bar comes after two seconds, and no lines beside it."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW],
        env=environment(**{SECONDS: "0.5"}),
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    seen = b""
    try:
        while part := os.read(master, 4096):
            seen += part
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0
    os.close(master)

    assert b"reading text:" in seen
    assert re.search(rb"\d/8 \[", seen)
    assert b"peftune:" not in seen


def test_filters_of_warnings_are_as_they_were() -> None:
    """What is kept away inside of a call is not kept away after it, and nothing else is."""
    before = list(warnings.filters)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with working("running"):
            warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
            warnings.warn("something else is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)

    assert [str(one.message) for one in told] == [
        "something else is deprecated",
        "`is_gradient_checkpointing` is deprecated",
    ]
    assert list(warnings.filters) == before


def test_importing_says_and_sets_up_nothing() -> None:
    """No handler, no filter, no word, before a function is called."""
    code = (
        "import logging, warnings; before = list(warnings.filters); import peftune, peftune.progress; "
        "assert logging.getLogger('peftune').handlers == []; assert list(warnings.filters) == before"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert (ended.stdout, ended.stderr) == ("", "")


RUN = """
import peftune
from peftune.errors import UsageError

model, tokenizer = peftune.prepare({base!r}, strategy=peftune.LoRA8bit(r=2), labels=["a", "b"])
run = peftune.run(
    "quickstart",
    strategy="lora-8bit",
    overrides=[
        "model.name_or_path={base}",
        "training.max_steps=2",
        "data.max_train_examples=24",
        "data.max_validation_examples=12",
        "data.max_test_examples=12",
        "forgetting.probes=[{{type: lm-loss, dataset_name: bundled:general-text, max_documents: 8}}]",
    ],
    output={output!r},
)
peftune.load(run.artifact, base={base!r}).predict(["what a lovely day"])
print(run.learning.n)
"""


@pytest.mark.slow
def test_a_script_sees_no_alarm_of_a_library(tiny_base: Path, tmp_path: Path) -> None:
    """prepare, run and load in int8 say what they do, and nothing that only looks like a fault."""
    code = RUN.format(base=str(tiny_base), output=str(tmp_path / "out"))
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**{SECONDS: "2"}),
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )

    assert ended.stdout == "12\n"
    assert [alarm for alarm in ALARMS if alarm in ended.stderr] == []
    assert all(line.startswith("peftune: ") for line in ended.stderr.splitlines()), ended.stderr
    assert "peftune: training 'lora-8bit' on 24 rows" in ended.stderr


def test_an_interval_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is done."""
    monkeypatch.setenv(SECONDS, "soon")

    with pytest.raises(UsageError) as caught, working("nothing"):
        pass

    assert str(caught.value) == (
        "The environment variable PEFTUNE_PROGRESS_SECONDS must be a number of seconds above 0 "
        "(got 'soon')."
    )
