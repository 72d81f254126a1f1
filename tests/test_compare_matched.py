"""Forgetting at matched accuracy: learning less is not merit, and forgetting less is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from peftune.experiments.compare.matched_accuracy import forgetting_at_matched_accuracy
from peftune.experiments.compare.summary import Matched
from peftune.experiments.report import PathPoint
from peftune.stats.crossed import seed_mean

Paths = dict[int, list[PathPoint]]

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def path(
    accuracies: list[float], forgotten: list[float], *, steps: list[int] | None = None
) -> list[PathPoint]:
    """Build a path over strengths, or over checkpoints."""
    places: list[tuple[float, int | None]] = (
        [(1.0, step) for step in steps]
        if steps
        else [(strength, None) for strength in np.linspace(0, 1, len(accuracies))]
    )
    return [
        PathPoint(strength, step, accuracy, accuracy, {"text": lost})
        for (strength, step), accuracy, lost in zip(places, accuracies, forgotten, strict=True)
    ]


def matched(paths: dict[str, Paths], accuracy: float | None = None) -> Matched:
    """Read all strategies, each of which learned."""
    found = forgetting_at_matched_accuracy("text", paths, learned=list(paths), accuracy=accuracy)
    assert found is not None
    return found


# By hand


def test_the_largest_accuracy_that_all_reach_is_the_lowest_of_their_best() -> None:
    """One ends at 0.6, the other, twice as far along the same straight line, at 0.8."""
    found = matched(
        {
            "near": {0: path([0.4, 0.6], [0.0, 0.1])},
            "far": {0: path([0.4, 0.8], [0.0, 0.2])},
        }
    )

    assert found.accuracy == 0.6
    assert found.forgetting["near"].mean == pytest.approx(0.1)
    assert found.forgetting["far"].mean == pytest.approx(0.1)


def test_of_several_crossings_the_one_with_the_least_forgetting_counts() -> None:
    """Up through 0.5 before forgetting 0.2, down again before 0.3, and up before 0.4."""
    winding = path([0.4, 0.6, 0.4, 0.6], [0.1, 0.2, 0.3, 0.4])

    found = matched({"a": {0: winding}, "b": {0: winding}}, accuracy=0.5)

    assert 0.1 < (found.forgetting["a"].mean or 0) < 0.2


def test_checkpoints_are_a_path_of_their_own() -> None:
    """A checkpoint that is as accurate and forgot less is the reading."""
    strengths = path([0.4, 0.8], [0.0, 0.4])
    checkpoints = path([0.6, 0.8], [0.1, 0.4], steps=[50, 100])

    found = matched({"a": {0: strengths}, "b": {0: strengths + checkpoints}}, accuracy=0.6)

    assert found.forgetting["a"].mean == pytest.approx(0.2)
    assert found.forgetting["b"].mean == pytest.approx(0.1)


def test_a_path_that_is_more_accurate_from_its_start_has_what_it_forgot_there() -> None:
    """A frozen backbone has one point and forgets nothing at any accuracy below it."""
    frozen = path([0.7], [0.0], steps=[100])

    found = matched({"frozen": {0: frozen}, "a": {0: path([0.4, 0.6], [0.0, 0.1])}})

    assert found.accuracy == 0.6
    assert found.forgetting["frozen"].mean == 0.0


def test_a_path_that_ends_below_the_accuracy_does_not_reach_it() -> None:
    """No figure is made up, and the reason says where the path ends."""
    paths: dict[str, Paths] = {
        "a": {0: path([0.4, 0.8], [0.0, 0.2])},
        "b": {0: path([0.4, 0.5], [0.0, 0.0])},
        "c": {0: []},
    }

    found = forgetting_at_matched_accuracy("text", paths, learned=["a", "c"])

    assert found is not None
    assert found.accuracy == 0.8
    assert found.forgetting["b"].mean is None
    assert found.forgetting["b"].reason == "not reached: its path ends at an accuracy of 0.500"
    assert found.forgetting["c"].reason == (
        "no path from the base was measured in every run, or its control failed"
    )
    assert found.differences == []


def test_with_one_seed_there_is_a_value_and_no_interval() -> None:
    """The reading of one seed, and the reason why nothing tells how sure it is."""
    paths = {"a": {0: path([0.4, 0.8], [0, 0.2])}, "b": {0: path([0.4, 0.8], [0, 0.4])}}

    found = matched(paths)

    assert found.forgetting["a"].mean == pytest.approx(0.2)
    assert found.forgetting["a"].ci95 is None
    assert found.forgetting["a"].reason == "one seed has no spread over seeds"
    [pair] = found.differences
    assert pair.mean == pytest.approx(-0.2)
    assert (pair.ci95, pair.p_value, pair.significant) == (None, None, False)


def test_nothing_is_matched_where_nothing_was_learned_or_compared() -> None:
    """One strategy has none to match with; accuracies of chance are not accuracies to match at."""
    line = {0: path([0.4, 0.8], [0.0, 0.2])}

    assert forgetting_at_matched_accuracy("text", {"a": line}, learned=["a"]) is None
    assert forgetting_at_matched_accuracy("text", {"a": line, "b": line}, learned=[]) is None


def test_identical_strategies_differ_by_exactly_nothing() -> None:
    """Zero, and not told apart."""
    line = {seed: path([0.4, 0.8 + seed / 50], [0, 0.2 + seed / 100]) for seed in range(3)}

    [pair] = matched({"a": line, "b": line}).differences

    assert (pair.mean, pair.p_value, pair.significant) == (0.0, 1.0, False)


def test_a_seed_that_was_merely_luckier_counts_by_the_path() -> None:
    """Seeds end at different places of one straight line: read at one accuracy, they agree.

    On the line forgetting is accuracy less 0.4; the mean path ends at 0.6, so each seed, moved
    along the line to 0.6, forgot 0.2.
    """
    line = {
        seed: path([0.4, 0.6 + shift], [0.0, 0.2 + shift])
        for seed, shift in enumerate((-0.04, 0.0, 0.04))
    }

    found = matched({"a": line, "b": line})

    assert found.forgetting["a"].values == pytest.approx([0.2, 0.2, 0.2])


def test_a_seed_that_ends_below_the_accuracy_is_not_left_out() -> None:
    """To keep only the seeds that reach it would keep the lucky ones."""
    line = {0: path([0.4, 0.5], [0.0, 0.1]), 1: path([0.4, 0.7], [0.0, 0.3])}

    found = matched({"a": line, "b": line})

    assert found.accuracy == pytest.approx(0.6)
    assert None not in found.forgetting["a"].values


# Simulated strategies


def simulated(end: float, factor: float, seed: int) -> Callable[[], list[PathPoint]]:
    """Simulate runs along one curve: accuracy saturates, forgetting grows with the square.

    A run ends at `end` on it, a little sooner or later; its accuracy is off by luck, and its
    forgetting by a few per cent. `factor` is how much it forgets beside others on the curve.
    """
    generator = np.random.default_rng(seed)

    def accuracy(at: float) -> float:
        return float(0.4 + 0.33 * (1 - np.exp(-3 * at)) / (1 - np.exp(-3)))

    def run() -> list[PathPoint]:
        reach = end * np.exp(0.02 * generator.standard_normal())
        luck = 0.003 * generator.standard_normal()
        lost = factor * np.exp(0.02 * generator.standard_normal())
        return path(
            [accuracy(reach * strength) + luck * strength for strength in STRENGTHS],
            [lost * (reach * strength) ** 2 for strength in STRENGTHS],
        )

    return run


def verdicts(factor: float, *, seeds: int, repetitions: int) -> list[tuple[bool, bool]]:
    """Say, of one that learned half as far, whether it forgets less: raw, and at matched accuracy."""
    further, nearer = simulated(1.0, 1.0, seed=1), simulated(0.55, factor, seed=2)
    found = []
    for _ in range(repetitions):
        paths = {
            "further": {seed: further() for seed in range(seeds)},
            "nearer": {seed: nearer() for seed in range(seeds)},
        }
        ends = [
            paths["further"][seed][-1].forgetting["text"]
            - paths["nearer"][seed][-1].forgetting["text"]
            for seed in range(seeds)
        ]
        raw = seed_mean(ends)
        [pair] = matched(paths).differences
        found.append(
            ((raw.p_value or 0) < 0.05 and raw.value > 0, pair.significant and pair.mean > 0)
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_strategy_that_only_learned_less_is_not_said_to_forget_less(seeds: int) -> None:
    """Raw, it always looks better; at matched accuracy at most one time in twenty, as by chance."""
    raw, fair = np.mean(verdicts(1.0, seeds=seeds, repetitions=200), axis=0)

    assert raw == 1.0
    assert fair <= 0.05


def test_a_strategy_that_forgets_less_is_said_to() -> None:
    """Half the forgetting on the way to the same accuracy is seen with three seeds."""
    _, fair = np.mean(verdicts(0.5, seeds=3, repetitions=50), axis=0)

    assert fair > 0.95
