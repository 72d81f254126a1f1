"""From which probability a label is said, where the recipe fixes it."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.errors import DataError

DEFAULT_THRESHOLD = 0.5


def fixed_thresholds(
    given: float | Sequence[float] | str, labels: int
) -> tuple[float, ...] | None:
    """Return one threshold a label, as a recipe fixes them; None where validation rows decide.

    Raises:
        DataError: there are not as many as labels.
    """
    if isinstance(given, str):
        return None
    limits = (given,) * labels if isinstance(given, float) else tuple(given)
    if len(limits) != labels:
        message = f"training.label_threshold has {len(limits)} numbers for {labels} labels. Give one for all, or one a label."
        raise DataError(message)
    return limits
