"""One word on what a run did to general ability, never without what it learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from peftune.forgetting.measure import ProbeResult

Verdict = Literal["retained", "forgot", "inconclusive", "nothing learned"]

MARGIN_UNIT = "bits/byte"
RETAINED_MARGIN = 0.010
"""Bits per byte below which a loss counts as none; about 1% of GPT-2's 0.98 on WikiText."""


def verdict(results: Sequence[ProbeResult], *, learned: bool) -> Verdict | None:
    """Judge the probes' intervals together.

    Args:
        results: probes of one run; those in another unit than the margin's have no say.
        learned: whether the task score beats the majority class.

    Returns:
        `nothing learned` before all else; `retained` if every interval lies below the margin;
        `forgot` if one lies above zero and not below the margin; else `inconclusive`. None
        without a probe in bits per byte.
    """
    judged = [result for result in results if result.unit == MARGIN_UNIT]
    if not judged:
        return None
    if not learned:
        return "nothing learned"
    intervals = [result.ci95 for result in judged]
    if any(
        interval is not None and interval[0] > 0 and interval[1] >= RETAINED_MARGIN
        for interval in intervals
    ):
        return "forgot"
    if all(interval is not None and interval[1] < RETAINED_MARGIN for interval in intervals):
        return "retained"
    return "inconclusive"
