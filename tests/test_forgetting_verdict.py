"""One word on what a run did to general ability."""

from __future__ import annotations

from typing import Literal

import pytest

from peftune.forgetting.results import assess_probe, verdict

Word = Literal["improved", "retained", "forgot", "inconclusive", "nothing learned"]


def _judge(
    interval: tuple[float, float] | None,
    *,
    learned: bool | None = True,
    margin: float | None = 0.010,
    excludes: bool = True,
    ci90: tuple[float, float] | None = None,
) -> Word | None:
    return assess_probe(
        margin=margin,
        ci95=interval,
        ci90=ci90 or interval,
        excludes_loss=excludes,
        learned=learned,
    )


@pytest.mark.parametrize(
    ("found", "learned", "expected"),
    [
        ([(-0.001, 0.004)], True, "retained"),
        ([(0.001, 0.004)], True, "retained"),
        ([(-0.02, -0.01)], True, "improved"),
        ([(-0.02, -0.01), (-0.001, 0.004)], True, "retained"),
        ([(-0.02, 0.0)], True, "retained"),
        ([(-0.02, -0.01)], False, "nothing learned"),
        ([(0.001, 0.02)], True, "forgot"),
        ([(0.001, 0.010)], True, "forgot"),
        ([(0.5, 0.6)], True, "forgot"),
        ([(0.5, 0.6)], False, "nothing learned"),
        ([(-0.001, 0.004)], False, "nothing learned"),
        ([(-0.001, 0.010)], True, "inconclusive"),
        ([(-0.01, 0.03)], True, "inconclusive"),
        ([None], True, "inconclusive"),
        ([None], False, "nothing learned"),
        ([(-0.001, 0.004), None], True, "inconclusive"),
        ([(-0.001, 0.004), (0.02, 0.03)], True, "forgot"),
        ([None, (0.02, 0.03)], True, "forgot"),
        ([(-0.001, 0.004), (-0.001, 0.02)], True, "inconclusive"),
        ([(-0.001, 0.004), (0.0, 0.009)], True, "retained"),
        ([], True, None),
        ([], False, None),
        ([(0.5, 0.6)], None, None),
        ([(-0.001, 0.004)], None, None),
    ],
)
def test_the_verdict_follows_from_the_intervals_and_from_what_was_learned(
    found: list[tuple[float, float] | None], learned: bool | None, expected: Word | None
) -> None:
    """Below zero improved; below 0.010 bits per byte retained; above zero and not below that forgot."""
    assert verdict([_judge(interval, learned=learned) for interval in found]) == expected


def test_a_probe_is_held_against_its_own_margin() -> None:
    """A loss of 2 is much in bits per byte and little in points; without a margin it has no say."""
    lost = (1.0, 3.0)

    assert _judge(lost) == "forgot"
    assert _judge(lost, margin=5.0) == "retained"
    assert _judge(lost, margin=None) is None
    assert verdict([_judge(lost, margin=None), _judge((-0.001, 0.002))]) == "retained"


def test_retained_is_a_one_sided_test_at_5_percent() -> None:
    """The upper end of the 90% interval decides; the 95% interval may reach over the margin."""
    assert _judge((-0.002, 0.012), ci90=(-0.001, 0.009)) == "retained"
    assert _judge((-0.002, 0.012), ci90=(-0.001, 0.010)) == "inconclusive"
    assert _judge((-0.001, 0.014), ci90=(0.001, 0.012)) == "inconclusive"


def test_documents_that_can_miss_a_loss_never_say_retained() -> None:
    """That no loss was found says nothing where one can hide; a change that shows is one."""
    assert _judge((-0.001, 0.004), excludes=False) == "inconclusive"
    assert _judge((0.02, 0.03), excludes=False) == "forgot"
    assert _judge((-0.46, -0.397), excludes=False) == "inconclusive"
    assert _judge((-0.46, -0.397)) == "improved"
