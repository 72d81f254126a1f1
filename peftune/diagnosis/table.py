"""All pitfalls that are looked for, each listed once."""

from __future__ import annotations

from collections.abc import Callable

from peftune.diagnosis import (
    below_baseline,
    class_imbalance,
    control_failed,
    forgetting,
    kept_float32,
    learning_rate_edge,
    learning_rates,
    linear_probe_gap,
    nothing_learned,
    over_budget,
    overfitting,
    scored_on_validation,
    small_test_set,
    training_rows,
    truncation,
    underfitting,
    unstable_seeds,
    warmup,
)
from peftune.diagnosis.finding import Facts, Finding, Pitfall

_IN_A_RUN: tuple[tuple[Pitfall, Callable[[Facts], Finding | None]], ...] = (
    (control_failed.PITFALL, control_failed.find_failed_control),
    (over_budget.PITFALL, over_budget.find_over_budget),
    (nothing_learned.PITFALL, nothing_learned.find_nothing_learned),
    (below_baseline.PITFALL, below_baseline.find_below_baseline),
    (forgetting.PITFALL, forgetting.find_forgetting),
    (overfitting.PITFALL, overfitting.find_overfitting),
    (underfitting.PITFALL, underfitting.find_underfitting),
    (scored_on_validation.PITFALL, scored_on_validation.find_score_on_validation),
    (small_test_set.PITFALL, small_test_set.find_small_test_set),
    (class_imbalance.PITFALL, class_imbalance.find_class_imbalance),
    (warmup.TOO_LONG, warmup.find_long_warmup),
    (warmup.IGNORED, warmup.find_ignored_warmup),
    (truncation.PITFALL, truncation.find_truncation),
    (kept_float32.PITFALL, kept_float32.find_kept_float32),
)

PITFALLS: tuple[Pitfall, ...] = (
    *(pitfall for pitfall, _ in _IN_A_RUN),
    learning_rate_edge.PITFALL,
    unstable_seeds.PITFALL,
    unstable_seeds.COLLAPSED,
    learning_rates.PITFALL,
    linear_probe_gap.PITFALL,
    training_rows.PITFALL,
)
"""What is looked for: in a run, in the winner of a search, in a comparison, and in rows scored."""


def find_pitfalls(facts: Facts) -> list[Finding]:
    """List what a careful reader should know before believing a run's numbers."""
    found = (find(facts) for _, find in _IN_A_RUN)
    return [finding for finding in found if finding is not None]
