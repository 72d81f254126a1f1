"""Intervals over documents, exact tests, and how many documents a claim takes."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from tuned import PROBE, measurement

from peftune.stats.intervals import forgetting_interval, ratio_interval
from peftune.forgetting.measure import ProbeText
from peftune.forgetting.results import ProbeResult, forgetting_of
from peftune.stats.tests import McNemar, Power, mcnemar, power
from peftune.probes import KLDivergence, Measurement

# Intervals


def test_the_interval_is_of_the_ratio_of_sums() -> None:
    """A long document counts as long as it is: a mean of ratios would lie elsewhere.

    Nine documents of one byte that lost 1 bit each, and 51 of 100 bytes that lost none: the ratio
    of sums is 9/5109; a mean of ratios would be 0.15.
    """
    weight = np.r_[np.ones(9), np.full(51, 100.0)]
    before = measurement(weight, weight)
    after = measurement(weight + np.r_[np.ones(9), np.zeros(51)], weight)

    interval = forgetting_interval(before, after, seed=0)

    assert interval is not None
    assert 0.0005 < interval[0] < 9 / 5109 < interval[1] < 0.004


@pytest.mark.parametrize("count", [20, 80])
def test_the_interval_repeats_for_a_seed(count: int) -> None:
    """Below 50 documents (BCa) and above (percentile), the seed decides the resamples."""
    generator = np.random.default_rng(0)
    weight = np.full(count, 100.0)
    before, after = (
        measurement(weight, weight),
        measurement(weight + generator.normal(5, 20, count), weight),
    )

    first, again, other = (forgetting_interval(before, after, seed=seed) for seed in (0, 0, 1))

    assert first is not None
    assert first == again
    assert first != other
    assert first[0] < float((after.total - before.total).mean() / 100) < first[1]


@pytest.mark.parametrize(
    ("count", "shown"), [(1, "1 document has"), (2, "2 documents have"), (9, "9 documents have")]
)
def test_too_few_documents_have_no_interval_and_the_report_says_why(
    count: int, shown: str
) -> None:
    """Below ten documents a bootstrap says nothing: null with a reason, never a width of zero."""
    few = measurement(np.arange(1.0, count + 1), np.ones(count))

    result = forgetting_of(
        ProbeText(PROBE, ("one",) * count), before=few, after=few, scoring={}, seed=0, learned=True
    )

    assert forgetting_interval(few, few, seed=0) is None
    assert (result.ci95, result.ci90, result.kl_ci95, result.power) == (None,) * 4
    assert result.verdict == "inconclusive"
    assert result.reason == (
        f"ci95, ci90, kl_ci95, power: {shown} too little spread for an interval; it takes 10; "
        "kl, kl_ci95: this probe does not measure it; "
        "mcnemar: its documents are not right or wrong; "
        "heads: no other output head was read beside it; quantization: the base is in float32"
    )


def test_ten_documents_have_an_interval() -> None:
    """Ten are enough to resample; the wider interval holds the narrower one."""
    changes = np.linspace(-1, 2, 10)
    before = measurement(np.ones(10), np.ones(10))
    after = measurement(1 + changes, np.ones(10))

    result = forgetting_of(
        ProbeText(PROBE, ("one",) * 10), before=before, after=after, scoring={}, seed=0
    )

    assert result.ci95 is not None
    assert result.ci90 is not None
    assert result.ci95[0] < result.ci90[0] < 0.5 < result.ci90[1] < result.ci95[1]


@pytest.mark.parametrize("count", [10, 20, 80])
def test_the_same_loss_everywhere_has_a_width_of_zero(count: int) -> None:
    """Where every byte lost the same there is nothing to be unsure of."""
    weight = np.arange(1.0, count + 1)

    interval = forgetting_interval(
        measurement(weight, weight), measurement(1.25 * weight, weight), seed=0
    )

    assert interval == pytest.approx((0.25, 0.25), abs=1e-12)


@pytest.mark.parametrize("documents", [10, 49, 50])
def test_a_constant_change_has_an_interval_of_no_width_and_no_warning(documents: int) -> None:
    """A frozen trunk changes no document: the interval is that one value, said in silence."""
    before = measurement(np.arange(documents, dtype=np.float64), np.ones(documents))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert forgetting_interval(before, before, seed=0) == (0.0, 0.0)


def test_equal_numbers_of_documents_are_resampled_alike() -> None:
    """The seed alone decides which documents are drawn: twice the loss has twice the interval."""
    weight = np.arange(1.0, 61.0)
    losses = np.random.default_rng(0).normal(1, 3, 60)

    once = ratio_interval(losses, weight, seed=7)
    twice = ratio_interval(2 * losses, weight, seed=7)

    assert once is not None
    assert twice == pytest.approx((2 * once[0], 2 * once[1]), rel=1e-12)


# Where more is better


class _Share(KLDivergence):
    """A probe of which more is better, and whose documents are right or wrong."""

    type = "share"
    higher_is_better = True
    right_or_wrong = True


def _share(before: list[int], after: list[int], *, margin: float = 0.5) -> ProbeResult:
    ones = np.ones(len(before))
    tokens = ones.astype(np.int64)
    extra = {"base_entropy": ones, "agreement": ones}
    first, last = (
        Measurement(np.array(right, dtype=np.float64), ones, tokens, extra)
        for right in (before, after)
    )
    probe = _Share(file="a.txt", margin=margin)
    return forgetting_of(
        ProbeText(probe, ("one",) * len(before)),
        before=first,
        after=last,
        scoring={},
        seed=0,
        learned=True,
        float_base=Measurement(ones, ones, tokens),
    )


def test_a_loss_is_positive_also_where_more_is_better() -> None:
    """Twelve of sixteen right, then eight: a loss of a quarter, and so are interval and 8-bit cost."""
    result = _share([1] * 12 + [0] * 4, [1] * 8 + [0] * 8)

    assert (result.before, result.after, result.forgetting) == (0.75, 0.5, 0.25)
    assert result.ci95 is not None
    assert 0 < result.ci95[0] < 0.25 < result.ci95[1]
    assert result.quantization is not None
    assert dataclasses.astuple(result.quantization) == (1.0, 0.25, 0.5)
    assert result.mcnemar == McNemar(4, 0, 0.125)


# Power


def test_the_documents_needed_follow_from_spread_and_margin() -> None:
    """Spread 0.03, margin 0.01: (2.8 * 3)^2 = 70.56, so 71 documents; 64 are too few.

    Half of the documents lose 0.03 bits a byte and half gain as much; the standard deviation of
    64 of them is 0.03 * sqrt(64 / 63).
    """
    weight = np.full(64, 200.0)
    before = measurement(weight, weight)
    after = measurement(weight * (1 + 0.03 * np.tile([1, -1], 32)), weight)

    found = power(before, after, margin=0.01)

    spread = 0.03 * math.sqrt(64 / 63)
    assert found.spread == pytest.approx(spread, rel=1e-9)
    assert found.needed_documents == math.ceil((2.8 * spread / 0.01) ** 2) == 72
    assert not found.enough
    assert power(before, after, margin=0.011).enough


def test_the_spread_is_that_of_the_ratio_of_sums() -> None:
    """It agrees with what the bootstrap finds, where documents are of very different lengths."""
    generator = np.random.default_rng(0)
    weight = generator.integers(10, 2000, 400).astype(np.float64)
    change = weight * generator.normal(0.02, 0.05, 400)
    before, after = measurement(weight, weight), measurement(weight + change, weight)

    interval = ratio_interval(change, weight, seed=0)

    assert interval is not None
    half = (interval[1] - interval[0]) / 2
    spread = power(before, after, margin=0.01).spread
    assert 1.96 * spread / math.sqrt(400) == pytest.approx(half, rel=0.05)
    assert spread > 1.1 * float((change / weight).std())


def test_one_document_has_no_power() -> None:
    """It has no spread to tell a change from."""
    one = measurement(np.array([1.0]), np.array([1.0]))

    assert power(one, one, margin=0.01) == Power(math.inf, 2, enough=False)


# McNemar


@pytest.mark.parametrize("n10", [0, 1, 5, 12])
@pytest.mark.parametrize("n01", [0, 1, 7, 30])
def test_mcnemar_is_the_exact_binomial_test(n10: int, n01: int) -> None:
    """Twice the smaller tail of a fair coin, at most 1; documents that did not change say nothing."""
    before = np.r_[np.ones(n10), np.zeros(n01), np.ones(9), np.zeros(4)]
    after = np.r_[np.zeros(n10), np.ones(n01), np.ones(9), np.zeros(4)]
    tail = stats.binom.cdf(min(n10, n01), n10 + n01, 0.5)

    found = mcnemar(before, after)

    assert (found.n10, found.n01) == (n10, n01)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail), abs=1e-12)
