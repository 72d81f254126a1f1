"""Which difference so many seeds and rows show, and how many seeds show the one that was seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
from comparisons import baseline, evidence
from numpy.typing import NDArray
from scipy import stats

from peftune.experiments.compare.figures import pitfalls_found
from peftune.experiments.compare.pairs import NO_SPREAD, differences
from peftune.experiments.compare.summarize import summarize
from peftune.experiments.compare.summary import Difference
from peftune.experiments.run_evidence import Evidence
from peftune.reporting.contents import Subject
from peftune.reporting.standings import strategies_section
from peftune.stats.crossed import MOST_SEEDS, CrossedError, crossed_error, crossed_mean
from peftune.stats.tests import LEVEL, holm

Values = NDArray[np.float64]

MAJORITY = baseline("majority", "majority class", (np.arange(400) < 120).astype(np.float64))


# Power


@pytest.mark.parametrize("seeds", [3, 5, 20])
@pytest.mark.parametrize("difference", [0.0, -0.7, 2.0, 3.0])
def test_without_a_part_of_the_rows_power_is_that_of_students_t(
    seeds: int, difference: float
) -> None:
    """Noncentral t of scipy, both tails; at a difference of zero it is the level."""
    bound = stats.t.isf(0.01, seeds - 1)
    noncentral = stats.nct(seeds - 1, difference / 0.5)
    expected = float(noncentral.sf(bound) + noncentral.cdf(-bound))

    power = CrossedError(0.5, seeds - 1, 0.0).power(difference, level=0.02)

    assert power == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("seeds", "units", "spread", "level"),
    [(3, 200, 0.05, 0.05 / 3), (5, 60, 0.3, 0.05)],
    ids=["rows matter", "seeds matter"],
)
def test_a_detectable_difference_is_seen_four_times_in_five(
    seeds: int, units: int, spread: float, level: float
) -> None:
    """Simulated: seeds, rows and what is neither, all normal, around the detectable difference.

    700 draws have a standard error of 0.015.
    """
    rng = np.random.default_rng(0)
    true = CrossedError((spread**2 / seeds + 1 / (seeds * units)) ** 0.5, seeds - 1, units**-0.5, 0.0, units)  # fmt: skip
    detectable = true.detectable(level=level)
    seen = []
    for _ in range(700):
        values = (
            detectable
            + spread * rng.standard_normal((seeds, 1))
            + rng.standard_normal((1, units))
            + rng.standard_normal((seeds, units))
        )
        seen.append(crossed_error(values).p_value(float(values.mean())) < level)

    assert np.mean(seen) == pytest.approx(0.8, abs=0.045)


def test_what_is_detectable_has_the_stated_power_and_grows_with_the_correction() -> None:
    """A stricter level and fewer seeds take a larger difference."""
    error = CrossedError(0.02, 2, 0.01, 0.3, 500)

    found = error.detectable(level=0.05)

    assert error.power(found, level=0.05) == pytest.approx(0.8, abs=1e-6)
    assert error.power(-found, level=0.05) == pytest.approx(0.8, abs=1e-6)
    assert error.detectable(level=0.05 / 3) > 1.5 * found
    assert error.with_seeds(5).detectable(level=0.05) < 0.6 * found


@pytest.mark.parametrize("difference", [0.06, -0.035])
def test_the_seeds_that_are_needed_are_the_fewest(difference: float) -> None:
    """One seed less has not the power."""
    error = CrossedError(0.02, 2, 0.008, 0.0, 500)

    needed = error.seeds_needed(difference, level=0.05)

    assert needed is not None
    assert error.with_seeds(needed).power(difference, level=0.05) >= 0.8
    assert error.with_seeds(needed - 1).power(difference, level=0.05) < 0.8


def test_another_number_of_seeds_shrinks_their_part_alone() -> None:
    """A standard error of three seeds is twice that of twelve; the rows' is what it was."""
    error = CrossedError(0.02, 2, 0.008, 0.1, 500)

    assert error.with_seeds(12) == CrossedError(0.01, 11, 0.008, 0.1, 500)


def test_no_number_of_seeds_shows_a_difference_within_the_rows_part() -> None:
    """Of 500 rows alone 80% power takes 1.965 + 0.842 standard errors (t and normal tables)."""
    error = CrossedError(0.02, 2, 0.01, 0.0, 500)

    assert [error.shown_by_seeds(d, level=0.05) for d in (0.0280, 0.0282)] == [False, True]
    assert error.seeds_needed(0.0280, level=0.05) is None
    of_seeds = CrossedError(0.02, 2, 0.0)
    assert of_seeds.shown_by_seeds(1e-6, level=0.05)
    assert of_seeds.seeds_needed(1e-6, level=0.05) is None
    # Many seeds are normal: n = 3 (2.802 * 0.02 / d)^2.
    known = of_seeds.seeds_needed(0.0035, level=0.05)
    assert known == pytest.approx(3 * (2.802 * 0.02 / 0.0035) ** 2, rel=0.01)
    assert known is not None
    assert known < MOST_SEEDS


def test_seeds_that_do_not_differ_leave_the_rows() -> None:
    """The same three answers: what would be seen is what the rows show, 1.984 + 0.842 of 100."""
    error = CrossedError(0.0, 2, 0.01, 0.0, 100)

    assert error.detectable(level=0.05) == pytest.approx(0.02826, abs=1e-5)
    assert error.seeds_needed(0.02, level=0.05) is None


# Pairs


@pytest.mark.parametrize(
    "others", [[], [0.2], [0.001, 0.3], [0.02, 0.02], [0.001, 0.002, 0.9], [0.012, 0.013, 0.04]]
)
def test_the_level_that_is_left_is_where_holm_would_tell_a_pair_apart(others: list[float]) -> None:
    """Brute force: a pair that is not told apart would have been below 0.05 / (pairs - told apart)."""
    adjusted = holm([0.9, *others])
    level = LEVEL / (len(adjusted) - sum(value < LEVEL for value in adjusted))

    assert holm([level * 0.999, *others])[0] < LEVEL
    assert holm([level * 1.001, *others])[0] > LEVEL


def scores(*means: float, spread: float = 0.05) -> Mapping[str, Mapping[int, Values]]:
    """Draw scores of three seeds on 300 rows for strategies of these means."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal(300)
    return {
        name: {
            seed: mean + spread * rng.standard_normal() + rows + rng.standard_normal(300)
            for seed in range(3)
        }
        for name, mean in zip("abcd", means, strict=False)
    }


def error_of(of: Mapping[str, Mapping[int, Values]], pair: Difference) -> CrossedError:
    """Estimate how the difference of a pair errs."""
    first, second = (np.array(list(of[name].values())) for name in (pair.first, pair.second))
    return crossed_error(first - second)


def test_pairs_that_are_not_told_apart_say_what_would_have_been_seen() -> None:
    """Of three pairs two are told apart, so the whole of 0.05 is left for the third."""
    drawn = scores(0.0, 0.02, 3.0)

    level, *apart = differences("loss", drawn, unit="rows", not_ranked={})

    assert [pair.significant for pair in (level, *apart)] == [False, True, True]
    assert {(pair.detectable, pair.seeds_needed, pair.reason) for pair in apart} == {(None,) * 3}
    error = error_of(drawn, level)
    assert level.detectable == error.detectable(level=0.05)
    assert level.seeds_needed == error.seeds_needed(level.mean, level=0.05)
    tied = differences("loss", scores(0.0, 0.02, 0.03), unit="rows", not_ranked={})
    assert tied[0].detectable == error_of(scores(0.0, 0.02, 0.03), tied[0]).detectable(
        level=0.05 / 3
    )


def test_a_pair_says_why_no_number_of_seeds_would_show_it() -> None:
    """Within the rows' part; without any spread; with one seed; and never of a pair told apart."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(300)
    near = {
        "a": {seed: rows + rng.standard_normal(300) for seed in range(3)},
        "b": {seed: 3 * rng.standard_normal() * 1e-3 + np.roll(rows, 1) for seed in range(3)},
    }

    [pair] = differences("loss", near, unit="documents", not_ranked={})

    assert pair.detectable is not None
    assert (pair.seeds_needed, pair.reason) == (
        None,
        "no number of seeds would show a difference this small, but more documents might",
    )
    same = {name: dict.fromkeys(range(3), rows) for name in "ab"}
    [pair] = differences("loss", same, unit="rows", not_ranked={})
    assert (pair.detectable, pair.seeds_needed, pair.reason) == (None, None, NO_SPREAD)
    [pair] = differences(
        "loss", {name: {0: of[0]} for name, of in near.items()}, unit="rows", not_ranked={}
    )
    assert (pair.detectable, pair.seeds_needed) == (None, None)
    assert pair.reason == "one seed: the interval speaks of this seed alone"


def test_a_mean_of_one_seed_does_not_say_how_seeds_err() -> None:
    """Its error is that of rows alone, which tells nothing of other seeds."""
    rng = np.random.default_rng(0)

    assert crossed_mean(rng.standard_normal((1, 50)), unit="rows").error is None
    assert crossed_mean(rng.standard_normal((3, 50)), unit="rows").error is not None


# What a reader sees


def runs(strategy: str, accuracy: float, spread: float) -> list[Evidence]:
    """Build three runs whose accuracies lie that far apart; each errs on rows of its own."""
    found = []
    for seed in range(3):
        share = accuracy + spread * (seed - 1)
        order = np.random.default_rng([ord(strategy[-1]), seed]).permutation(400)
        found.append(evidence(strategy, seed, (order < share * 400).astype(np.float64)))
    return found


def test_a_tie_says_what_would_have_been_seen_and_what_it_takes() -> None:
    """In the answer, in comparison.json, and in the page's table of pairs."""
    items = [*runs("full", 0.8, 0.02), *runs("lora", 0.74, -0.03)]

    summary = summarize(items, baselines=[MAJORITY], held_equal="examples_seen")

    [pair] = summary.differences
    first, second = (
        np.array(
            [
                (one.rows.predicted == one.rows.labels).astype(float)
                for one in items[place : place + 3]
            ]
        )
        for place in (0, 3)
    )
    error = crossed_error(first - second)
    assert pair.detectable == error.detectable(level=0.05)
    assert pair.seeds_needed == error.seeds_needed(0.06, level=0.05)
    clause = f"; with 3 seeds a difference in accuracy of {pair.detectable:.3f} would mostly be seen, and about {pair.seeds_needed} seeds would show 0.060; "
    assert clause in summary.answer
    stored = dataclasses.asdict(summary)["differences"][0]
    assert (stored["detectable"], stored["seeds_needed"]) == (pair.detectable, pair.seeds_needed)
    page = str(strategies_section(Subject(summary, items, [])))
    assert f"Cell(text='{pair.detectable:.3f}', detail='{pair.seeds_needed} seeds for 0.060'" in page  # fmt: skip


def test_a_tie_of_several_names_the_pair_that_is_nearest_to_being_told_apart() -> None:
    """The one that the fewest seeds would show."""
    items = [*runs("full", 0.8, 0.02), *runs("lora", 0.79, -0.03), *runs("dora", 0.745, -0.03)]

    summary = summarize(items, baselines=[MAJORITY], held_equal="examples_seen")

    pair = next(one for one in summary.differences if (one.first, one.second) == ("full", "dora"))
    assert pair.detectable is not None
    assert (
        f"a difference in accuracy of {pair.detectable:.3f} between full and dora would mostly be seen, and about {pair.seeds_needed} seeds would show 0.055; "
        in summary.answer
    )


def test_the_answer_names_seeds_that_collapsed() -> None:
    """Beside the other strategy's figures, which they do not touch."""
    drawn = [*runs("full", 0.8, 0.02), *runs("lora", 0.8, 0.01)]
    items = [planted(one) for one in drawn]

    summary = summarize(items, baselines=[MAJORITY], held_equal="examples_seen")

    assert [one.seed for one in summary.standings[1].collapsed] == [1]
    assert [list(one.collapsed) for one in summary.standings[:1]] == [[]]
    assert summary.answer.endswith(
        "; seed 1 of lora collapsed: it says 'good' for every row, and the figures of lora include it."
    )
    [found] = pitfalls_found(items, [])
    assert found.code == "collapsed-seed"
    assert found.message.startswith(
        "1 of 3 seeds of lora collapsed: seed 1 gives every row the label 'good' (accuracy 0.500); "
    )


def planted(one: Evidence) -> Evidence:
    """Make two labels of the rows, and let seed 1 of lora say one of them of every row."""
    labels = np.arange(400) % 2
    right = one.rows.predicted == one.rows.labels
    predicted = np.where(right, labels, 1 - labels)
    if (one.run.run.strategy, one.run.run.seed) == ("lora", 1):
        predicted = np.ones(400, dtype=np.int64)
    rows = dataclasses.replace(one.rows, labels=labels, predicted=predicted)
    return dataclasses.replace(one, rows=rows)
