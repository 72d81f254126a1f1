"""Right answers that luck gives: what of an accuracy can be lost at all, and what was."""

from __future__ import annotations

from peftune.probes.base import Measurement


def above_chance(before: Measurement, after: Measurement, *, chance: float) -> dict[str, float]:
    """Set right answers before and after against guessing.

    Args:
        before: 1 for each document that the base gets right, 0 for the others.
        after: the same of the tuned model.
        chance: share that a guess gets right, 1/k with k options.

    Returns:
        `chance`; `headroom`, the base's share of right answers that were no luck; `forgot_true` and
        `gained_true`, the shares of documents that went from right to wrong and from wrong to
        right, less what two independent guessers would swap.

    References:
        Harmon et al. 2025, Mapping Post-Training Forgetting, arXiv:2510.17776.
    """
    count = float(before.weight.sum())
    lost = float((before.total > after.total).sum()) / count
    gained = float((after.total > before.total).sum()) / count
    # 1/(k - 1): right guesses for each wrong one. Where every guess is right, nothing can be lost.
    odds = chance / (1 - chance) if chance < 1 else 0.0
    swapped = (1 - before.value) * (1 - after.value) * odds
    return {
        "chance": chance,
        "headroom": max(0.0, (before.value - chance) / (1 - chance)) if chance < 1 else 0.0,
        "forgot_true": max(0.0, lost - swapped),
        "gained_true": max(0.0, gained - swapped),
    }
