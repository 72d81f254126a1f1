"""A run that is killed at any operation on a file, and repeated, is the run that nothing killed."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pytest
from undisturbed import Undisturbed
from warm_runs import (
    ENDINGS,
    KILL,
    TEAR,
    Fault,
    Operation,
    WarmRuns,
    warm_runs,
    why_not,
    write_recipe,
    write_rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

IN_FULL = {
    "full": "budget",
    "lora": "early-stopping",
    "lora-8bit": "max-steps",
    "head-only": "epochs",
}
"""Runs that are killed at every operation; the other pairs at a few."""

EVERY = {"full": 4, "lora": 4, "lora-8bit": 6, "head-only": 3}
"""Which operations are tried: every third, fourth or sixth, and every one with `--every-operation`.

All of them are more than 300, and took 37 minutes.
"""

OTHERS = [
    (strategy, ending) for strategy in IN_FULL for ending in ENDINGS if IN_FULL[strategy] != ending
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what the runs read."""
    folder = tmp_path_factory.mktemp("killed").resolve()
    write_rows(folder)
    return folder


@pytest.fixture(scope="module")
def runs(work: Path) -> Iterator[WarmRuns]:
    """Give the process whose forks run."""
    recipes = [write_recipe(work, strategy, ending) for strategy, ending in IN_FULL.items()]
    with warm_runs(work, recipes) as started:
        yield started


def points(operations: Sequence[Operation]) -> list[Fault]:
    """List the moments at which a run is killed: before each operation, amid each single write.

    Of writes that follow each other into one file, which leave it torn alike, the first, one in
    the middle and the last stand for all; the first leaves it empty. A folder that is made once more
    is left as it is.
    """
    found, made = [], set()
    for (name, path), group in groupby(enumerate(operations), lambda one: (one[1][0], one[1][2])):
        numbers = [number for number, _ in group]
        if name == "write" and len(numbers) == 1:
            found.append(Fault(numbers[0], TEAR))
        elif name == "write":
            found.append(Fault(numbers[0], KILL))
            found += [Fault(at, TEAR) for at in sorted({numbers[len(numbers) // 2], numbers[-1]})]
        elif (name, path) not in made:
            found.append(Fault(numbers[0], KILL))
        if name == "mkdir":
            made.add((name, path))
    return found


def faults_after(bench: Undisturbed, *kills: Fault) -> list[str]:
    """Kill a run, and the repeated ones; say what is wrong after the last repetition."""
    bench.clear()
    name = ", then ".join(bench.named(kill) for kill in kills)
    for number, kill in enumerate(kills):
        ended = bench.run(kill)
        if ended.code != -signal.SIGKILL and not (number and ended.code == bench.code):
            return [f"{name}: not killed ({ended.code})"]
    return [f"{name}: {fault}" for fault in bench.faults_of_repetition(kills[0])]


@pytest.mark.parametrize("strategy", IN_FULL)
def test_a_run_that_is_killed_at_any_operation_ends_as_if_it_had_not_been(
    strategy: str, runs: WarmRuns, work: Path, request: pytest.FixtureRequest
) -> None:
    """SIGKILL in training, evaluation, checkpoints, save and report; then the same command again.

    Artifact, predictions and evidence are the same byte for byte, the report but for times, and
    nothing is left over.
    """
    bench = Undisturbed(runs, work, strategy, IN_FULL[strategy])

    every = 1 if request.config.getoption("every_operation") else EVERY[strategy]
    chosen = points(bench.operations)[::every]
    faults = [fault for kill in chosen for fault in faults_after(bench, kill)]

    assert not faults, "\n".join(faults)
    assert len(chosen) >= 75 // every
    paths = " ".join(bench.operations[kill.at][2] for kill in points(bench.operations))
    for part in ("/cache/", "/optimizer.pt", "/run/.", "/predictions.jsonl", "/report.json"):
        assert part in paths
    assert "/report.html" in paths


@pytest.mark.parametrize(("strategy", "ending"), OTHERS)
def test_every_strategy_goes_on_however_its_training_ends(
    strategy: str, ending: str, runs: WarmRuns, work: Path
) -> None:
    """Killed within the first checkpoint, right after the last, in the save and before the report."""
    bench = Undisturbed(runs, work, strategy, ending)
    after_last = 1 + max(
        at for at, one in enumerate(bench.operations) if "/checkpoints/" in one[2]
    )
    staged = [at for at, one in enumerate(bench.operations) if "/run/." in one[2]]
    first = next(
        at for at, one in enumerate(bench.operations) if one[2].endswith("trainer_state.json")
    )

    chosen = [
        Fault(first, KILL),
        Fault(after_last, KILL),
        Fault(staged[len(staged) // 2], KILL),
        Fault(bench.written, KILL),
    ]

    faults = [fault for kill in chosen for fault in faults_after(bench, kill)]

    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("strategy", IN_FULL)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    strategy: str, runs: WarmRuns, work: Path
) -> None:
    """Kills at random operations, so that resuming itself is killed too."""
    bench = Undisturbed(runs, work, strategy, IN_FULL[strategy])
    drawn = random.Random(strategy)  # noqa: S311 - the same at every time

    faults = []
    for _ in range(3):
        latest = (bench.written, bench.written // 4)
        faults += faults_after(bench, *(Fault(drawn.randrange(end), KILL) for end in latest))

    assert not faults, "\n".join(faults)
