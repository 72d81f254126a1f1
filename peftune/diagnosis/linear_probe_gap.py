"""A head that was trained does worse than the same head, fitted."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.diagnosis.finding import Finding, Pitfall
from peftune.stats.intervals import Interval

PITFALL = Pitfall(
    code="below-linear-probe",
    scope="comparison",
    looks_for="`head-only` is less accurate than the linear probe of the same frozen base: its head was not trained to its end.",
    threshold="The 95% interval of every seed's accuracy lies below the probe's accuracy. Both are a linear head on the same frozen base and learn from the same rows, so they should agree; the probe is fitted until it no longer changes.",
)


def below_linear_probe(
    accuracies: Sequence[float], intervals: Sequence[Interval | None], probe: float
) -> Finding | None:
    """Look whether a trained head lies clearly below the head that was fitted to the same base.

    Args:
        accuracies: of `head-only`, one a seed.
        intervals: 95% intervals of them over rows.
        probe: accuracy of the linear probe on the same rows.
    """
    highs = [interval[1] for interval in intervals if interval is not None]
    if not highs or len(highs) < len(accuracies) or max(highs) >= probe:
        return None
    shown = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return PITFALL.found(
        "warning",
        f"head-only reaches an accuracy of {shown}, the linear probe of the same frozen base {probe:.3f}: the two are the same head on the same features and should agree, so head-only was trained too little.",
        "Raise compare.training.head-only.learning_rate (ten times what lora has is usual) or training.num_train_epochs.",
    )
