"""Intervals of a single run's scores: against scipy, by hand, and by how often they hold the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import f1_score

from peftune.stats.intervals import mean_interval
from peftune.stats.scores import (
    better_macro_f1_p_value,
    better_p_value,
    correlation_interval,
    macro_f1_interval,
    mean_share_interval,
    roc_auc_interval,
)
from peftune.tasks import methods_of

DRAWS = 400


def one_hot(ids: NDArray[np.int64], labels: int) -> NDArray[np.bool_]:
    """Mark each row's label."""
    return np.asarray(np.eye(labels, dtype=bool)[ids])


@pytest.mark.parametrize(("right", "count"), [(20, 20), (0, 20), (19, 20), (97, 100), (125, 250)])
def test_the_accuracy_interval_is_scipys_wilson(right: int, count: int) -> None:
    """Twenty of twenty right is not certain: the lower end is 0.839."""
    said = np.r_[np.zeros(right, int), np.ones(count - right, int)]
    learning = methods_of("single-label").score(
        np.eye(2)[said], (0,) * count, names=("a", "b"), split="test"
    )
    wilson = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")

    assert learning.ci95["accuracy"] == pytest.approx((wilson.low, wilson.high), abs=1e-5)


def test_accuracies_near_one_are_covered() -> None:
    """By enumeration: 0.97 is held in 88, 94 and 95 of 100; the bootstrap held it in 41, 78 and 92."""
    for count, least in ((20, 0.87), (50, 0.93), (250, 0.94)):
        held = 0.0
        for right in range(count + 1):
            answers = np.r_[np.ones(right), np.zeros(count - right)]
            low, high = mean_share_interval(answers[None])
            held += float(stats.binom.pmf(right, count, 0.97)) * (low <= 0.97 <= high)
        assert held > least


def test_several_answers_a_row_are_as_sure_as_their_spread_over_rows() -> None:
    """Equal answers say what one says; independent ones as much as so many rows, and not more."""
    generator = np.random.default_rng(0)
    one = (generator.random(100) < 0.7).astype(np.float64)
    alone, same = mean_share_interval(one[None]), mean_share_interval(np.stack([one, one]))
    opposite = mean_share_interval(np.stack([one, 1 - one]))
    wilson = stats.binomtest(100, 200).proportion_ci(0.95, method="wilson")

    assert same == pytest.approx(alone, abs=0.01)
    assert opposite == pytest.approx((wilson.low, wilson.high), abs=1e-5)


def test_the_macro_f1_interval_of_few_rows_is_worked_out_by_hand() -> None:
    """Of 10 and 10 rows one each is wrong: F1 is 0.9 twice, and the interval is Wilson's of 20 rows.

    A right row moves macro F1 by (2 - 0.9 x 2) / 20 / 2 = 0.005, a wrong one by -(0.9 + 0.9) / 20 / 2
    = -0.045: 18 x 0.005^2 + 2 x 0.045^2 = 0.0045, times 20 / 19. That is the variance of a share of 0.9
    in 0.09 / 0.00474 = 19 rows.
    """
    true = np.repeat([0, 1], 10)
    said = true.copy()
    said[[0, 10]] = 1 - said[[0, 10]]
    center = (0.9 + 1.96**2 / 38) / (1 + 1.96**2 / 19)
    half = 1.96 / (1 + 1.96**2 / 19) * math.sqrt(0.09 / 19 + 1.96**2 / (4 * 19**2))

    found = macro_f1_interval(one_hot(true, 2), one_hot(said, 2))

    assert found == pytest.approx((center - half, center + half), rel=1e-9)


def test_a_label_of_which_no_error_was_seen_may_have_some() -> None:
    """All right: Wilson's for the harmonic mean of the labels' rows, 2^2 / (1/90 + 1/10) = 36."""
    ids = np.repeat([0, 1], [90, 10])
    low, high = macro_f1_interval(one_hot(ids, 2), one_hot(ids, 2)) or (0.0, 0.0)

    assert (low, high) == pytest.approx((1 / (1 + 1.96**2 / 36), 1.0))


def test_macro_f1_with_few_rows_of_a_label_has_a_reason_in_place_of_an_interval() -> None:
    """Five rows of every label are the fewest; labels without rows are among those named."""
    truth = (0,) * 20 + (1,) * 5 + (2,) * 4
    logits = np.eye(4)[list(truth)]
    enough = methods_of("single-label").score(
        logits[:25, :2], truth[:25], names=("a", "b"), split="test"
    )
    few = methods_of("single-label").score(logits, truth, names=("a", "b", "c", "d"), split="test")

    assert enough.ci95["macro_f1"] is not None
    assert enough.reason is None
    assert few.ci95["macro_f1"] is None
    assert few.ci95["accuracy"] is not None
    assert few.reason == (
        "ci95: macro_f1 takes 5 rows of every label: c has 4, d has 0; "
        "roc_auc: a label has no rows in this split"
    )


def test_a_reason_names_three_labels_and_counts_the_rest() -> None:
    """A task of 77 labels does not fill the report with their names."""
    learning = methods_of("single-label").score(
        np.eye(9)[[0] * 5], (0,) * 5, names=tuple("abcdefghi"), split="test"
    )

    assert learning.reason == (
        "ci95: macro_f1 takes 5 rows of every label: b has 0, c has 0, d has 0 and 5 more; "
        "roc_auc: a label has no rows in this split"
    )


@pytest.mark.parametrize(
    ("labels", "count", "accuracy", "imbalance", "least"),
    [(2, 20, 0.9, 1, 0.9), (2, 50, 0.97, 1, 0.9), (2, 100, 0.95, 10, 0.9), (10, 250, 0.97, 1, 0.9), (10, 1000, 0.6, 5, 0.9)],
)  # fmt: skip
def test_the_macro_f1_interval_holds_the_truth(
    labels: int, count: int, accuracy: float, imbalance: float, least: float
) -> None:
    """Simulated with known confusion; of 2 x 50 rows at 0.97 the bootstrap's holds it in 78 of 100."""
    shares = np.geomspace(imbalance, 1, labels)
    shares /= shares.sum()
    wrong = np.tile(shares, (labels, 1)) * (1 - np.eye(labels))
    rates = (1 - accuracy) * wrong / wrong.sum(axis=1, keepdims=True) + accuracy * np.eye(labels)
    table = shares[:, None] * rates
    f1 = float((2 * np.diag(table) / (table.sum(axis=0) + table.sum(axis=1))).mean())
    generator, held = np.random.default_rng(0), []
    for _ in range(DRAWS):
        true, said = np.divmod(generator.choice(labels**2, count, p=table.ravel()), labels)
        found = macro_f1_interval(one_hot(true, labels), one_hot(said, labels))
        if found is not None:
            held.append(found[0] <= f1 <= found[1])

    assert len(held) > DRAWS / 2
    assert np.mean(held) > least


def test_an_area_of_one_is_not_certain() -> None:
    """Of 10 and 10 rows the lower end is the area from which 1 is 1.96 standard errors away."""
    low, high = roc_auc_interval(1.0, [10], [10]) or (0.0, 0.0)
    above, below = low / (2 - low) - low**2, 2 * low**2 / (1 + low) - low**2
    error = math.sqrt((low * (1 - low) + 9 * above + 9 * below) / 100)

    assert high == 1.0
    assert (1 - low) / error == pytest.approx(1.96)


def test_the_interval_of_an_area_does_not_depend_on_what_is_called_positive() -> None:
    """Swapping the labels turns an area into one less it, and so its interval."""
    for area, few, many in ((0.97, 12, 238), (0.6, 5, 45), (1.0, 3, 47)):
        low, high = roc_auc_interval(area, [few], [many]) or (0.0, 0.0)

        assert roc_auc_interval(area, [many], [few]) == pytest.approx((low, high))
        assert roc_auc_interval(1 - area, [many], [few]) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("positives", "negatives"), [(12, 238), (10, 10), (25, 25)])
def test_areas_near_one_are_covered(positives: int, negatives: int) -> None:
    """Simulated at 0.97 with exponential scores; Hanley and McNeil's own margin held 55 to 78 of 100."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        high = generator.exponential(0.97 / 0.03, positives)
        area = float((high[:, None] > generator.exponential(1.0, negatives)).mean())
        low, top = roc_auc_interval(area, [positives], [negatives]) or (0.0, 0.0)
        held += low <= 0.97 <= top

    assert held / DRAWS > 0.9


def test_the_correlation_interval_of_normal_numbers_is_fishers_at_least() -> None:
    """Fisher's margin is 1.96 / sqrt(n - 3) on his scale; few rows and lines have no interval."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=50)
    second = first + generator.normal(size=50)
    center = math.atanh(float(stats.pearsonr(first, second).statistic))
    low, high = correlation_interval(first, second) or (0.0, 0.0)

    assert math.atanh(high) - center >= 1.96 / math.sqrt(47) - 1e-12
    assert math.atanh(high) - center == pytest.approx(center - math.atanh(low))
    assert math.atanh(high) - center < 1.3 * 1.96 / math.sqrt(47)
    assert correlation_interval(first[:3], second[:3]) is None
    assert correlation_interval(first, 2 * first + 1) is None


def test_correlations_with_uneven_errors_are_covered() -> None:
    """Simulated at 0.5, errors as large as the number: Fisher's alone holds 77 of 100."""
    generator, held, fisher = np.random.default_rng(0), 0, 0
    for _ in range(DRAWS):
        first = generator.normal(size=250)
        second = 0.5 * first + math.sqrt(0.75) * generator.normal(size=250) * np.abs(first)
        low, high = correlation_interval(first, second) or (0.0, 0.0)
        center = math.atanh(float(np.corrcoef(first, second)[0, 1]))
        held += low <= 0.5 <= high
        fisher += abs(center - math.atanh(0.5)) <= 1.96 / math.sqrt(247)

    assert fisher / DRAWS < 0.85
    assert held / DRAWS > 0.9


def test_the_squared_error_of_a_regression_has_the_interval_of_a_skewed_mean() -> None:
    """Hall's: of Laplace errors in 50 rows the bootstrap's holds 87 of 100, this one 94."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=50)
    said = truth + generator.laplace(size=50)
    learning = methods_of("regression").score(
        said[:, None], tuple(truth), names=("s",), split="test"
    )

    assert learning.ci95["loss"] == learning.ci95["mse"] == mean_interval((said - truth) ** 2)
    assert learning.ci95["pearson"] == correlation_interval(truth, said)


def test_a_gain_in_accuracy_has_the_one_sided_exact_probability() -> None:
    """Against scipy's binomial test: five of five by chance is 1 in 32, six of six 1 in 64."""
    for gained, lost in ((5, 0), (6, 0), (12, 3), (3, 12), (0, 0)):
        expected = (
            stats.binomtest(gained, gained + lost, alternative="greater").pvalue
            if gained + lost
            else 1.0
        )
        assert better_p_value(gained, lost) == pytest.approx(expected)


def test_a_gain_in_macro_f1_has_the_probability_of_all_swaps() -> None:
    """By brute force over the 2^7 ways to swap seven answers, with scikit-learn's F1.

    The other is wrong in five of these rows, this one in the last two.
    """
    truth = np.random.default_rng(4).integers(0, 3, 30)
    other, said, rows = truth.copy(), truth.copy(), np.arange(7)
    other[:5], said[5:7] = (truth[:5] + 1) % 3, (truth[5:7] + 2) % 3

    def gain(swapped: tuple[int, ...]) -> float:
        mine, others = said.copy(), other.copy()
        places = rows[np.array(swapped, dtype=bool)]
        mine[places], others[places] = other[places], said[places]
        first, second = (
            f1_score(truth, ids, labels=range(3), average="macro", zero_division=0)
            for ids in (mine, others)
        )
        return float(first - second)

    seen = gain((0,) * 7)
    all_swaps = [gain(swaps) >= seen - 1e-12 for swaps in itertools.product((0, 1), repeat=7)]
    found = better_macro_f1_p_value(truth, said, other, labels=3, seed=0)

    assert 0.01 < np.mean(all_swaps) < 0.9
    assert found == pytest.approx(np.mean(all_swaps), abs=0.035)  # three standard errors of 2000
    assert better_macro_f1_p_value(truth, truth, truth, labels=3, seed=0) == 1.0
