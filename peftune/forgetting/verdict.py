"""One word on what a run did to general ability, never without what it learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from peftune.stats.intervals import Interval

Verdict = Literal["improved", "retained", "forgot", "inconclusive", "nothing learned"]


def judge_probe(
    *,
    margin: float | None,
    ci95: Interval | None,
    ci90: Interval | None,
    excludes_loss: bool,
    learned: bool | None,
) -> Verdict | None:
    """Judge one probe.

    "Retained" is a claim of equivalence: the upper end of the 90% interval, which is a one-sided
    test at 5%, lies below the margin, and the documents can exclude a loss that few of them bear
    (`peftune.stats.intervals.cannot_exclude`). That no loss was found is not enough. "Improved" and
    "forgot" are differences: the 95% interval lies below or above zero; and "improved", too, says that
    no few documents bear a loss.

    Args:
        margin: loss that still counts as retained; None gives no verdict.
        ci95: 95% interval of the loss.
        ci90: 90% interval of the loss.
        excludes_loss: whether the documents can exclude a loss that few of them bear.
        learned: whether the task was learned; None where it is not known.

    References:
        Schuirmann 1987, A comparison of the two one-sided tests procedure.
    """
    if margin is None or learned is None:
        return None
    if not learned:
        return "nothing learned"
    if ci90 is None or ci95 is None:
        return "inconclusive"
    if ci95[1] < 0:
        return "improved" if excludes_loss else "inconclusive"
    if ci90[1] < margin:
        return "retained" if excludes_loss else "inconclusive"
    return "forgot" if ci95[0] > 0 else "inconclusive"


def verdict(words: Sequence[Verdict | None]) -> Verdict | None:
    """Judge the probes of one run together: the worst word that one of them has."""
    order: tuple[Verdict, ...] = ("nothing learned", "forgot", "inconclusive", "retained", "improved")  # fmt: skip
    return next((word for word in order if word in words), None)
