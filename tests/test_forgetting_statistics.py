"""Intervals over documents, exact tests, and how many documents a claim takes."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from tuned import PROBE, measurement

from peftune.forgetting.measurement import ProbeText
from peftune.forgetting.results import ProbeResult, forgetting_of
from peftune.probes import KLDivergence, Measurement
from peftune.stats.intervals import cannot_exclude, ratio_interval, share_change_interval
from peftune.stats.tests import McNemar, Power, mcnemar, power

# Intervals


def test_the_interval_is_of_the_ratio_of_sums() -> None:
    """A long document counts as long as it is: a mean of ratios would lie elsewhere.

    Nine documents of one byte that lost 1 bit each, and 51 of 100 bytes that lost none: the ratio
    of sums is 9/5109; a mean of ratios would be 0.15.
    """
    weight = np.r_[np.ones(9), np.full(51, 100.0)]
    lost = np.r_[np.ones(9), np.zeros(51)]

    interval = ratio_interval(lost, weight)

    assert interval is not None
    assert 0.0004 < interval[0] < 9 / 5109 < interval[1] < 0.004


def test_the_interval_of_losses_that_are_not_skewed_is_students() -> None:
    """Sixty documents of one length, symmetric: scipy's one-sample t test."""
    half = np.random.default_rng(0).normal(0, 20, 30)
    losses = np.r_[5 + half, 5 - half]
    reference = stats.ttest_1samp(losses / 100, 0)

    for confidence in (0.95, 0.90):
        interval = ratio_interval(losses, np.full(60, 100.0), confidence=confidence)
        assert interval == pytest.approx(tuple(reference.confidence_interval(confidence)))


def test_the_interval_of_skewed_losses_reaches_further_up() -> None:
    """Hall's transformation: g(t) = t + s t^2 / 3 + s^2 t^3 / 27 + s / 6, s the skewness over sqrt(n).

    Above, where the skewness is, g of the distance in standard errors is Student's quantile; below,
    Student's t lies farther out, and is taken.
    """
    losses = np.random.default_rng(0).lognormal(0, 1, 40)
    interval = ratio_interval(losses, np.ones(40))

    assert interval is not None
    lean = float(stats.skew(losses)) / 40**0.5
    error = losses.std(ddof=1) / 40**0.5
    mean = losses.mean()
    distance = (mean - interval[1]) / error
    mapped = distance + lean * distance**2 / 3 + lean**2 * distance**3 / 27 + lean / 6
    assert mapped == pytest.approx(stats.t.ppf(0.025, 39))
    assert (mean - interval[0]) / error == pytest.approx(stats.t.ppf(0.975, 39))
    assert interval[1] - mean > 1.2 * (mean - interval[0])


def test_a_loss_that_few_documents_bear_cannot_be_excluded_by_few() -> None:
    """0.95^58 > 0.05 > 0.95^59; and Cochran: 25 times the squared skewness, of losses alone."""
    even = np.r_[np.full(50, 1.0), np.full(50, -1.0)]
    rare = np.r_[np.full(97, 0.0), 10.0, 10.0, 10.0]
    ones = np.ones(100)

    assert cannot_exclude(even, ones) is None
    assert cannot_exclude(even[21:79], ones[:58]) == (
        "a loss in one of twenty documents can be missed by 58; it takes 59"
    )
    skew = float(stats.skew(rare))
    assert cannot_exclude(rare, ones) == (
        "few documents bear most of the loss: for losses this uneven it takes "
        f"{math.ceil(25 * skew**2)} documents, and there are 100"
    )
    assert cannot_exclude(-rare, ones) is None
    assert cannot_exclude(np.zeros(10), ones[:10]) is None  # nothing changed at all


def test_a_share_that_did_not_change_is_not_certain() -> None:
    """Agresti and Min: half an answer in each cell, so (0.5 + 0.5) / 22^2 is the variance of 20."""
    same = np.ones(20)
    margin = 1.959964 / 22

    assert share_change_interval(same, same) == pytest.approx((-margin, margin))
    low, high = share_change_interval(same, np.r_[np.zeros(4), np.ones(16)])
    change, error = -4 / 22, (5 - 16 / 22) ** 0.5 / 22
    assert (low, high) == pytest.approx((change - 1.959964 * error, change + 1.959964 * error))


@pytest.mark.parametrize(
    ("count", "shown"), [(1, "1 document has"), (2, "2 documents have"), (9, "9 documents have")]
)
def test_too_few_documents_have_no_interval_and_the_report_says_why(
    count: int, shown: str
) -> None:
    """Below ten documents an interval says nothing: null with a reason, never a width of zero."""
    few = measurement(np.arange(1.0, count + 1), np.ones(count))

    result = forgetting_of(
        ProbeText(PROBE, ("one",) * count), before=few, after=few, scoring={}, learned=True
    )

    assert ratio_interval(few.total, few.weight) is None
    assert (result.ci95, result.ci90, result.kl_ci95, result.power) == (None,) * 4
    assert result.verdict == "inconclusive"
    assert result.reason == (
        f"ci95, ci90, kl_ci95, power: {shown} too little spread for an interval; it takes 10; "
        "kl, kl_ci95: this probe does not measure it; "
        "mcnemar: its documents are not right or wrong; "
        "heads: no other output head was read beside it; quantization: the base is in float32"
    )


def test_ten_documents_have_an_interval() -> None:
    """Ten are enough; the wider interval holds the narrower one."""
    changes = np.linspace(-1, 2, 10)
    before = measurement(np.ones(10), np.ones(10))
    after = measurement(1 + changes, np.ones(10))

    result = forgetting_of(ProbeText(PROBE, ("one",) * 10), before=before, after=after, scoring={})

    assert result.ci95 is not None
    assert result.ci90 is not None
    assert result.ci95[0] < result.ci90[0] < 0.5 < result.ci90[1] < result.ci95[1]


@pytest.mark.parametrize("count", [10, 20, 80])
def test_the_same_loss_everywhere_has_a_width_of_zero(count: int) -> None:
    """Where every byte lost the same there is nothing to be unsure of."""
    weight = np.arange(1.0, count + 1)

    interval = ratio_interval(0.25 * weight, weight)

    assert interval == pytest.approx((0.25, 0.25), abs=1e-12)


@pytest.mark.parametrize("documents", [10, 49, 50])
def test_a_constant_change_has_an_interval_of_no_width_and_no_warning(documents: int) -> None:
    """A frozen backbone changes no document: the interval is that one value, said in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ratio_interval(np.zeros(documents), np.ones(documents)) == (0.0, 0.0)


# Where more is better


class _Share(KLDivergence):
    """A probe of which more is better, and whose documents are right or wrong."""

    name = "share"
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
    change = weight * 0.03 * np.tile([1, -1], 32)

    found = power(change, weight, margin=0.01)

    spread = 0.03 * math.sqrt(64 / 63)
    assert found.spread == pytest.approx(spread, rel=1e-9)
    assert found.needed_documents == math.ceil((2.8 * spread / 0.01) ** 2) == 72
    assert not found.enough
    assert power(change, weight, margin=0.011).enough


def test_the_spread_is_that_of_the_ratio_of_sums() -> None:
    """It agrees with a bootstrap over documents, where they are of very different lengths."""
    generator = np.random.default_rng(0)
    weight = generator.integers(10, 2000, 400).astype(np.float64)
    change = weight * generator.normal(0.02, 0.05, 400)
    drawn = generator.integers(0, 400, (4000, 400))
    ratios = change[drawn].sum(axis=1) / weight[drawn].sum(axis=1)

    spread = power(change, weight, margin=0.01).spread

    assert spread / math.sqrt(400) == pytest.approx(ratios.std(), rel=0.05)
    assert spread > 1.1 * float((change / weight).std())


def test_one_document_has_no_power() -> None:
    """It has no spread to tell a change from."""
    one = np.array([1.0])

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
