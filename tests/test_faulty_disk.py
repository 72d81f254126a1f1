"""A disk that fails or is full: one line that names the place, nothing lost, and the repeated run is right."""

from __future__ import annotations

import errno
import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from undisturbed import Undisturbed, contents
from warm_runs import (
    FAIL,
    FAIL_EVER_AFTER,
    SHORTEN,
    Ended,
    Fault,
    Operation,
    WarmRuns,
    warm_runs,
    why_not,
    write_recipe,
    write_rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

CASES = {"head-only": ("epochs", 95), "full": ("max-steps", 65), "lora": ("max-steps", 45)}
"""How the training of a strategy ends, and how many of its operations fail."""

FULL = Fault(action=FAIL_EVER_AFTER, error=errno.ENOSPC)
BROKEN = Fault(action=FAIL, error=errno.EIO)
FORBIDDEN = Fault(action=FAIL, error=errno.EACCES)
READ_ONLY = Fault(action=FAIL_EVER_AFTER, error=errno.EROFS)
SHORT = Fault(action=SHORTEN)

KINDS = {
    "write": (FULL, SHORT, BROKEN),
    "open": (FULL, FORBIDDEN, READ_ONLY, BROKEN),
    "mkdir": (FULL, FORBIDDEN, READ_ONLY),
    "rename": (FORBIDDEN, READ_ONLY, BROKEN),
    "fsync": (BROKEN, FULL),
    "ftruncate64": (FULL, BROKEN),
    "unlink": (READ_ONLY, FORBIDDEN),
}
"""How each operation fails on a real disk, in turn; any other as `rename` does."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what the runs read."""
    folder = tmp_path_factory.mktemp("disk").resolve()
    write_rows(folder)
    return folder


@pytest.fixture(scope="module")
def runs(work: Path) -> Iterator[WarmRuns]:
    """Give the process whose forks run."""
    recipes = [write_recipe(work, strategy, ending) for strategy, (ending, _) in CASES.items()]
    with warm_runs(work, recipes) as started:
        yield started


def chosen_faults(operations: Sequence[Operation], count: int) -> list[Fault]:
    """Spread faults over the operations, each kind of operation with its faults in turn."""
    turns = {name: itertools.cycle(KINDS.get(name, KINDS["rename"])) for name, *_ in operations}
    numbers = sorted({round(at * (len(operations) - 1) / (count - 1)) for at in range(count)})
    found = []
    for number in numbers:
        fault = next(turns[operations[number][0]])
        found.append(Fault(number, fault.action, fault.error))
    return found


def faults_of_message(ended: Ended, place: Path) -> Iterator[str]:
    """Say what is wrong with how a run told of its end."""
    if ended.code not in {1, 3}:
        yield f"it ended with {ended.code}: {ended.errors[-500:]}"
        return
    last = ended.errors.splitlines()[-1]
    if not last.startswith("peftune: ") or str(place) not in last:
        yield f"its last line names no place: {last}"
    for word in ("Traceback", "panicked", "Exception ignored"):
        if word in ended.errors:
            yield f"{word}: {ended.errors[-700:]}"


@pytest.mark.parametrize("strategy", CASES)
def test_a_disk_that_fails_costs_one_line_and_nothing_that_was_finished(
    strategy: str, runs: WarmRuns, work: Path
) -> None:
    """No room, an I/O error, no permission, read-only, a short write: told, kept, and repeated right.

    A fault that the run can do without, as one of the cache, changes nothing.
    """
    ending, count = CASES[strategy]
    bench = Undisturbed(runs, work, strategy, ending)

    chosen = chosen_faults(bench.operations, count)
    faults = [f"{bench.named(one)}: {fault}" for one in chosen for fault in _after(bench, one)]

    assert not faults, "\n".join(faults)
    assert len(chosen) == count


def _after(bench: Undisturbed, fault: Fault) -> Iterator[str]:
    bench.clear()
    ended = bench.run(fault)
    if not ended.fired:
        yield "it did not come"
    if ended.code != bench.code:
        yield from faults_of_message(ended, bench.place)
        yield from bench.lost(fault)
    yield from bench.faults_of_repetition(fault)


def test_a_whole_checkpoint_stays_where_its_folder_cannot_be_synced(
    runs: WarmRuns, work: Path
) -> None:
    """After its digest has its name nothing of it is missing, whatever the disk says of the folder."""
    bench = Undisturbed(runs, work, "head-only", "epochs")
    synced = re.compile(r".*/checkpoint-[0-9]+").fullmatch
    chosen = [
        Fault(number, FAIL, errno.EIO)
        for number, (operation, _, path) in enumerate(bench.operations)
        if operation == "fsync" and synced(path)
    ]

    faults = [f"{bench.named(one)}: {fault}" for one in chosen for fault in _after(bench, one)]

    assert not faults, "\n".join(faults)
    assert len(chosen) == 2


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """Mount a file system in memory; skip where that is not allowed."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting takes root: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)  # noqa: S607


def resize(place: Path, size: int) -> None:
    """Give the file system another size in bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)  # noqa: S607


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_disk_that_fills_up_is_told_and_the_run_goes_on_with_more_room(
    share: float, runs: WarmRuns, work: Path
) -> None:
    """A real file system of a share of the room that a run takes, and then of enough."""
    strategy, ending = "lora", "max-steps"
    bench = Undisturbed(runs, work, strategy, ending)
    room = sum(-(-len(content) // 4096) * 4096 for content in bench.expected.values())
    bench.place = work / f"disk-{share}"
    bench.folder = bench.place / "run"
    with small_disk(bench.place):
        resize(bench.place, int(room * share))
        ended = bench.run()
        before = contents(bench.folder)
        assert list(faults_of_message(ended, bench.place)) == []
        resize(bench.place, 32 << 20)
        assert before == contents(bench.folder)

        ended = bench.run()

        assert ended.code == bench.code, ended.errors
        assert list(bench.differences(pages=True)) == []
        assert os.path.ismount(bench.place)
