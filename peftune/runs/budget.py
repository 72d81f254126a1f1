"""The gate of a recipe: how much may be forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.errors import GateError
from peftune.runs.report import Run


def check_budget(runs: Sequence[Run], budget: float | None) -> None:
    """Fail runs that forgot more than their recipe allows; they are kept.

    Args:
        runs: finished runs.
        budget: largest allowed forgetting in bits per byte; None allows any.

    Raises:
        GateError: probes in bits per byte are over the budget; a line for each.
    """
    if budget is None:
        return
    faults = [
        f"Forgetting on '{probe.name}' is {probe.forgetting:+.4f} bits per byte, over the budget of {budget:g}. The run is kept in '{run.folder}'."
        for run in runs
        for probe in run.forgetting
        if probe.unit == "bits/byte" and probe.forgetting > budget
    ]
    if faults:
        raise GateError(*faults)
