"""What a comparison's statistics promise: coverage, few false differences, letters, fronts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from peftune.experiments.compare.pairs import adjusted, difference, differences
from peftune.experiments.compare.summarize import front
from peftune.stats.crossed import crossed_mean, crossed_share, seed_mean
from peftune.stats.intervals import contributions, mean_interval
from peftune.stats.tests import holm, letters

REPETITIONS = 2000

Array = NDArray[np.float64]

# The mean over seeds and rows, by hand


def test_the_error_of_the_mean_is_the_sum_of_two_students() -> None:
    """Values -1 1 / 0 6 / 4 8: MS_seed 18, MS_row 24, MS_rest 2; over 6 that is 3 and 22 / 6.

    Drawn from: sqrt(3) times Student's t of two degrees of freedom and sqrt(22 / 6) times that of one,
    ten million times with numpy, of which the quantiles are.
    """
    generator = np.random.default_rng(0)
    drawn = 3**0.5 * generator.standard_t(2, 10**7) + (22 / 6) ** 0.5 * generator.standard_t(
        1, 10**7
    )
    low, high = np.quantile(drawn, (0.025, 0.975))

    mean = crossed_mean(np.array([[-1.0, 1.0], [0.0, 6.0], [4.0, 8.0]]), unit="rows")

    assert mean.value == 3
    assert mean.ci95 == pytest.approx((3 - high, 3 - low), rel=0.01)
    assert mean.p_value == pytest.approx(float((abs(drawn) >= 3).mean()), rel=0.01)
    assert mean.reason is None


def test_one_part_alone_is_students_t() -> None:
    """Where rows do not differ Student's t is over seeds; where seeds do not, over rows."""
    generator = np.random.default_rng(0)
    by_seed = np.tile(generator.normal(0.1, 1, (4, 1)), (1, 50))
    by_row = np.tile([[-2.0, -1.0, 0.0, 1.0, 2.5, 3.0]], (4, 1)) + generator.normal(0, 0.0, (4, 6))
    values = by_row[0]

    seeds, rows = crossed_mean(by_seed, unit="rows"), crossed_mean(by_row, unit="rows")

    reference = stats.ttest_1samp(by_seed[:, 0], 0)
    assert seeds.ci95 == pytest.approx(tuple(reference.confidence_interval()))
    assert seeds.p_value == pytest.approx(reference.pvalue)
    assert rows.ci95 == pytest.approx(mean_interval(values))


def test_an_interval_and_its_p_value_say_the_same() -> None:
    """Moved so that its interval ends at zero, a mean has a p-value of 0.05, skewed or not."""
    values = np.random.default_rng(0).lognormal(0, 1, (3, 40))
    for end in (0, 1):
        interval = crossed_mean(values, unit="documents").ci95
        assert interval is not None
        moved = crossed_mean(values - interval[end], unit="documents")
        assert moved.p_value == pytest.approx(0.05, abs=1e-9)


def test_a_part_of_the_variance_is_never_negative_and_agreeing_seeds_are_no_proof() -> None:
    """Values 1 -1 / -1 1 / 0 0 have equal seeds and equal rows: MS_rest, 2, is all there is.

    The seeds' part is not taken for less than the 5% quantile of chi-square over its degrees of freedom.
    """
    mean = crossed_mean(np.array([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]), unit="rows")

    margin = stats.t.ppf(0.975, 2) * (2 * stats.chi2.ppf(0.05, 2) / 2 / 6) ** 0.5
    assert mean.ci95 == pytest.approx((-margin, margin))


@pytest.mark.parametrize(
    "values", [[[0.785] * 40, [1.012] * 40], [[0.0] * 40, [0.0] * 40]], ids=["apart", "equal"]
)
def test_two_seeds_have_a_mean_and_no_interval(values: list[list[float]]) -> None:
    """One degree of freedom is not evidence, and two that agree are none that a third would.

    The interval that Student's t gives for 0.785 and 1.012 is -0.54 to 2.34.
    """
    mean = crossed_mean(np.array(values), unit="documents")

    assert mean.value == pytest.approx(np.mean(values))
    assert (mean.ci95, mean.p_value) == (None, None)
    assert mean.reason == "two seeds cannot tell; three can"
    assert seed_mean([one[0] for one in values]) == mean


def test_one_seed_speaks_of_itself_alone_and_says_so() -> None:
    """With one seed the interval is over rows; of values that are not skewed, scipy's t test."""
    half = np.random.default_rng(0).normal(0, 1, 15)
    values = np.r_[0.1 + half, 0.1 - half][None]

    mean = crossed_mean(values, unit="rows")

    reference = stats.ttest_1samp(values[0], 0)
    assert mean.ci95 == pytest.approx(tuple(reference.confidence_interval()))
    assert mean.p_value == pytest.approx(reference.pvalue)
    assert mean.reason == "one seed: the interval speaks of this seed alone"


def test_a_share_near_one_has_wilsons_interval() -> None:
    """Of one seed it is Wilson's; what no seed got wrong is as uncertain as the rows are few."""
    rng = np.random.default_rng(0)
    once = (rng.random((1, 40)) < 0.95).astype(np.float64)
    wilson = stats.binomtest(int(once.sum()), 40).proportion_ci(method="wilson")
    perfect = stats.binomtest(40, 40).proportion_ci(method="wilson")

    assert crossed_share(once).ci95 == pytest.approx(tuple(wilson), abs=1e-4)
    assert crossed_share(np.ones((3, 40))).ci95 == pytest.approx(tuple(perfect), abs=1e-4)
    assert crossed_share(np.ones((2, 40))).ci95 is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_runs_differ_by_exactly_nothing(seeds: int) -> None:
    """No variance is not a reason for a NaN: the difference is 0, its interval too, and p is 1."""
    mean = crossed_mean(np.zeros((seeds, 40)), unit="rows")

    assert (mean.value, mean.ci95, mean.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_a_difference_that_is_the_same_everywhere_is_certain() -> None:
    """One strategy right on every row and the other on none, for every seed."""
    mean = crossed_mean(np.ones((3, 40)), unit="rows")

    assert (mean.value, mean.ci95, mean.p_value) == (1.0, (1.0, 1.0), 0.0)


@pytest.mark.parametrize(
    ("count", "shown"), [(1, "1 document has"), (2, "2 documents have"), (9, "9 documents have")]
)
def test_too_few_documents_have_no_interval(count: int, shown: str) -> None:
    """Below ten documents there is a mean, no interval, no p-value, and the reason."""
    mean = crossed_mean(np.arange(2.0 * count).reshape(2, count), unit="documents")

    assert (mean.ci95, mean.p_value) == (None, None)
    assert mean.reason == f"{shown} too little spread for an interval; it takes 10"


def test_a_figure_of_each_seed_has_students_interval_over_seeds() -> None:
    """Seconds 10, 12, 14: mean 12, standard error 2 / sqrt(3), two degrees of freedom."""
    mean = seed_mean([10, 12, 14])

    margin = 4.302653 * 2 / 3**0.5
    assert mean.value == 12
    assert mean.ci95 == pytest.approx((12 - margin, 12 + margin))
    assert seed_mean([10]).ci95 is None
    assert seed_mean([10]).reason == "one seed has no spread over seeds"
    assert seed_mean([7, 7, 7]).ci95 == (7, 7)


def test_contributions_average_to_the_ratio_of_sums() -> None:
    """A document of 9 bytes that lost 9 bits and one of 1 byte that lost none: 0.9, not 0.5."""
    terms = contributions(np.array([[9.0, 0.0]]), np.array([9.0, 1.0]))

    assert terms.mean() == pytest.approx(0.9)
    # ratio + (total - ratio * weight) / mean weight: 0.9 + 0.9 / 5 and 0.9 - 0.9 / 5
    assert terms[0] == pytest.approx([1.08, 0.72])


def test_contributions_spread_as_the_ratio_does() -> None:
    """Their variance is that of the jackknife over documents, to first order."""
    generator = np.random.default_rng(0)
    weight = generator.uniform(50, 200, 400)
    totals = weight * generator.normal(0.1, 0.05, 400)
    without = (totals.sum() - totals) / (weight.sum() - weight)
    jackknife = 399 / 400 * ((without - without.mean()) ** 2).sum()

    terms = contributions(totals[None], weight)

    assert terms.var(ddof=1) / 400 == pytest.approx(jackknife, rel=0.02)


# Simulated strategies


def answering(
    *, seeds: int, rows: int, by_seed: float, means: tuple[float, ...], repetitions: int
) -> Iterator[Array]:
    """Simulate strategies that answer rows: (strategies, seeds, rows) of right and wrong.

    A row is answered right if a normal variable lies above zero: the strategy's mean, how hard the
    row is (for all, and for this strategy), how the seed turned out, and the rest.
    """
    generator = np.random.default_rng(rows + seeds)
    strategies = len(means)
    for _ in range(repetitions):
        latent = (
            np.array(means)[:, None, None]
            + 1.2 * generator.standard_normal((1, 1, rows))
            + 0.45 * generator.standard_normal((strategies, 1, rows))
            + by_seed * generator.standard_normal((strategies, seeds, 1))
            + 0.6 * generator.standard_normal((strategies, seeds, rows))
        )
        yield (latent > 0).astype(np.float64)


def accuracy_of(mean: float, by_seed: float) -> float:
    """Return the accuracy over all seeds and rows that `answering` draws from."""
    return float(stats.norm.cdf(mean / (1.2**2 + 0.45**2 + by_seed**2 + 0.6**2) ** 0.5))


def forgetting(
    *, seeds: int, documents: int, by_seed: float, means: tuple[float, ...], repetitions: int
) -> Iterator[list[Array]]:
    """Simulate bits per byte lost on documents of unlike length, as contributions by strategy."""
    generator = np.random.default_rng(documents + seeds)
    for _ in range(repetitions):
        weight = 900 * np.exp(0.5 * generator.standard_normal(documents))
        yield [
            contributions(
                weight
                * (
                    mean
                    + by_seed * generator.standard_normal((seeds, 1))
                    + 0.06 * generator.standard_normal(documents)
                    + 0.03 * generator.standard_normal((seeds, documents))
                ),
                weight,
            )
            for mean in means
        ]


def covered(interval: tuple[float, float] | None, truth: float) -> bool:
    """Say whether an interval holds the truth."""
    assert interval is not None
    return interval[0] <= truth <= interval[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "by_seed"), [(3, 0.08), (3, 0.1), (5, 0.03), (5, 0.06), (5, 0.1)]
)
def test_the_interval_of_an_accuracy_difference_covers_the_truth(
    seeds: int, by_seed: float
) -> None:
    """At least 93 times in 100, for another seed and other rows.

    The accuracy of one strategy varies from seed to seed by 0.8 to 2.5 points.
    """
    truth = accuracy_of(0.60, by_seed) - accuracy_of(0.52, by_seed)

    hits = [
        covered(crossed_mean(first - second, unit="rows").ci95, truth)
        for first, second in answering(
            seeds=seeds, rows=500, by_seed=by_seed, means=(0.60, 0.52), repetitions=REPETITIONS
        )
    ]

    assert 0.93 <= np.mean(hits) < 1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("by_seed", [0.005, 0.02])
def test_the_interval_of_a_forgetting_difference_covers_the_truth(
    seeds: int, by_seed: float
) -> None:
    """Forty documents of unlike length: at least 93 times in 100."""
    hits = [
        covered(crossed_mean(first - second, unit="documents").ci95, 0.05)
        for first, second in forgetting(
            seeds=seeds, documents=40, by_seed=by_seed, means=(0.05, 0.0), repetitions=REPETITIONS
        )
    ]

    assert 0.93 <= np.mean(hits) < 1


def test_an_interval_over_rows_alone_is_far_too_narrow() -> None:
    """What most comparisons print: it takes the seeds for all seeds, and covers 6 times in 10."""
    truth = accuracy_of(0.60, 0.15) - accuracy_of(0.52, 0.15)
    hits = []
    for first, second in answering(
        seeds=3, rows=500, by_seed=0.15, means=(0.60, 0.52), repetitions=500
    ):
        over_rows = (first - second).mean(axis=0, keepdims=True)
        hits.append(covered(crossed_mean(over_rows, unit="rows").ci95, truth))

    assert np.mean(hits) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_strategies_are_seldom_told_apart(seeds: int) -> None:
    """Of three equal strategies any two are told apart at most 5 times in 100, all pairs counted.

    The share of 1,000 simulations is itself uncertain by 0.7, hence 6.5.
    """
    simulated = forgetting(
        seeds=seeds, documents=40, by_seed=0.01, means=(0.1, 0.1, 0.1), repetitions=1000
    )

    wrong = [
        any(
            pair.significant
            for pair in differences(
                "forgetting.p",
                {
                    name: dict(enumerate(scores))
                    for name, scores in zip("abc", strategies, strict=True)
                },
                unit="documents",
                not_ranked={},
            )
        )
        for strategies in simulated
    ]

    assert np.mean(wrong) <= 0.065


def test_strategies_that_differ_are_told_apart() -> None:
    """Nine points of accuracy on 400 rows and five seeds are seen more than 9 times in 10."""
    simulated = answering(seeds=5, rows=400, by_seed=0.04, means=(0.85, 0.5), repetitions=200)

    seen = [
        (crossed_mean(first - second, unit="rows").p_value or 0.0) < 0.05
        for first, second in simulated
    ]

    assert accuracy_of(0.85, 0.04) - accuracy_of(0.5, 0.04) == pytest.approx(0.087, abs=1e-3)
    assert np.mean(seen) > 0.9


# Pairs, letters, fronts


def test_holm_agrees_with_the_textbook() -> None:
    """Sorted p-values times 5, 4, 3, 2, 1, never falling, never above 1."""
    assert holm([0.042, 0.001, 0.031, 0.014, 0.007]) == pytest.approx(
        [0.062, 0.005, 0.062, 0.042, 0.028]
    )
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_without_a_p_value_do_not_count_as_pairs() -> None:
    """What was not tested needs no correction, and an unequal pair is shown with its reason."""
    rows = np.random.default_rng(0).normal(1, 1, (3, 50))
    tested = difference("accuracy", ("a", "b"), crossed_mean(rows, unit="rows"))
    untested = difference("accuracy", ("a", "c"), crossed_mean(rows[:, :5], unit="documents"))

    first, second = adjusted([tested, untested], {frozenset("ac"): "not ranked: fewer rows"})

    assert first.p_adjusted == first.p_value
    assert first.significant
    assert first.ranked
    assert (second.p_adjusted, second.significant, second.ranked) == (None, False, False)
    assert second.reason == (
        "not ranked: fewer rows; 5 documents have too little spread for an interval; it takes 10"
    )


def test_a_pair_is_compared_on_the_seeds_that_both_finished() -> None:
    """A seed that one of them lacks says nothing of the difference; McNemar goes by seed."""
    right, wrong = np.ones(4), np.zeros(4)
    first = {0: right, 1: right, 2: wrong}
    second = {0: wrong, 1: right}

    [pair] = differences("accuracy", {"a": first, "b": second}, unit="rows", not_ranked={})

    assert pair.mean == 0.5
    assert {seed: (test.n10, test.n01) for seed, test in pair.mcnemar.items()} == {
        0: (4, 0),
        1: (0, 0),
    }
    [apart] = differences(
        "accuracy", {"a": {0: right}, "b": {1: wrong}}, unit="rows", not_ranked={}
    )
    assert (apart.mean, apart.ci95, apart.p_value) == (1.0, None, None)
    assert apart.reason == "no seed was finished by both"


@pytest.mark.parametrize(
    ("significant", "expected"),
    [
        ([], {"w": "a", "x": "a", "y": "a", "z": "a"}),
        ([("w", "z")], {"w": "a", "x": "ab", "y": "ab", "z": "b"}),
        ([("w", "y"), ("w", "z"), ("x", "z")], {"w": "a", "x": "ab", "y": "bc", "z": "c"}),
        (list(combinations("wxyz", 2)), {"w": "a", "x": "b", "y": "c", "z": "d"}),
    ],
)
def test_the_best_strategy_has_the_first_letter(
    significant: list[tuple[str, str]], expected: dict[str, str]
) -> None:
    """Letters as tables of pairwise comparisons print them."""
    assert letters("wxyz", significant) == expected


def test_two_strategies_share_a_letter_exactly_if_they_cannot_be_told_apart() -> None:
    """For every one of the 1,024 ways in which five strategies can be told apart."""
    pairs = list(combinations("vwxyz", 2))
    for case in range(2 ** len(pairs)):
        significant = [pair for place, pair in enumerate(pairs) if case >> place & 1]
        found = letters("vwxyz", significant)
        assert [pair for pair in pairs if not set(found[pair[0]]) & set(found[pair[1]])] == (
            significant
        )
        groups = [{n for n in "vwxyz" if letter in found[n]} for letter in {*"".join(found.values())}]  # fmt: skip
        assert not any(one < other for one in groups for other in groups)


def test_the_front_keeps_what_no_other_beats_in_both() -> None:
    """Equal points both stay; a point that is worse in one and equal in the other goes."""
    figures = {
        "cheap": (0.6, 1.0),
        "good": (0.7, 3.0),
        "twin": (0.7, 3.0),
        "dear": (0.7, 4.0),
        "bad": (0.5, 1.0),
    }

    assert front(figures) == ["cheap", "good", "twin"]
