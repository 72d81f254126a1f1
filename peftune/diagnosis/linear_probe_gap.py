"""A head that was trained does worse than the same head, fitted."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.diagnosis.finding import Finding, Pitfall
from peftune.stats.intervals import Interval

PITFALL = Pitfall(
    code="below-linear-probe",
    scope="comparison",
    looks_for="`head-only` is less accurate than the linear probe of the same frozen base: its head was not trained to its end.",
    threshold="The paired 95% interval of its accuracy minus the probe's, on the same rows, lies below zero. Both are a linear head on the same frozen base and learn from the same rows, so they should agree; the probe is fitted until it no longer changes.",
)


def below_linear_probe(
    accuracies: Sequence[float], probe: float, apart: Interval | None
) -> Finding | None:
    """Look whether a trained head lies clearly below the head that was fitted to the same base.

    Args:
        accuracies: of `head-only`, one a seed.
        probe: accuracy of the linear probe on the same rows.
        apart: paired 95% interval of the difference, `head-only` minus the probe; None where there
            is none.
    """
    if apart is None or apart[1] >= 0:
        return None
    shown = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return PITFALL.found(
        "warning",
        f"head-only reaches an accuracy of {shown}, the linear probe of the same frozen base {probe:.3f}, {-apart[1]:.3f} to {-apart[0]:.3f} more on the same rows: the two are the same head on the same features and should agree, so head-only was trained too little.",
        "Raise compare.training.head-only.learning_rate (ten times what lora has is usual) or training.num_train_epochs.",
    )
