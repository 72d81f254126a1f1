"""What two strategies must share before one of them is called the better."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Literal

from peftune.compare.figures import BySeed
from peftune.compare.pairs import Reasons
from peftune.compare.summary import HeldEqual

_WORDS = {"examples_seen": "rows read in training", "steps": "optimizer steps"}


def not_ranked(
    runs: Mapping[str, BySeed], held_equal: HeldEqual, budgets: Mapping[str, int] | None
) -> Reasons:
    """Find the pairs that differ in what a comparison holds equal.

    Args:
        runs: by strategy and seed.
        held_equal: what is held equal.
        budgets: trials of the tuning of each strategy; read where `held_equal` is `tuned`.

    Returns:
        By pair, why it is shown and not ranked.
    """
    reasons = {}
    for pair in combinations(runs, 2):
        if held_equal == "tuned":
            reason = _tuning(pair, budgets or {})
        else:
            reason = _training(pair, runs, held_equal)
        if reason is not None:
            reasons[frozenset(pair)] = f"not ranked: {reason}"
    return reasons


def equal_over_seeds(runs: BySeed, what: Literal["examples_seen", "steps"]) -> int | None:
    """Return a count that is the same in every run of a strategy; else None."""
    counts = {getattr(one.run.cost, what) for one in runs.values()}
    return counts.pop() if len(counts) == 1 else None


def _tuning(pair: tuple[str, str], budgets: Mapping[str, int]) -> str | None:
    missing = [name for name in pair if name not in budgets]
    if missing:
        return f"no tuning budget is known for {' and '.join(missing)}"
    first, second = (budgets[name] for name in pair)
    if first != second:
        return f"{pair[0]} was tuned with {first:,} trials and {pair[1]} with {second:,}"
    return None


def _training(
    pair: tuple[str, str], runs: Mapping[str, BySeed], what: Literal["examples_seen", "steps"]
) -> str | None:
    first, second = (runs[name] for name in pair)
    for seed in [seed for seed in first if seed in second]:
        counts = [getattr(of[seed].run.cost, what) for of in (first, second)]
        if counts[0] != counts[1]:
            return f"{pair[0]} had {counts[0]:,} {_WORDS[what]} and {pair[1]} {counts[1]:,} (seed {seed})"
    return None
