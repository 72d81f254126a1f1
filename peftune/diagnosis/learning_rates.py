"""Strategies that want unlike learning rates are trained with one."""

from __future__ import annotations

from collections.abc import Mapping

from peftune.diagnosis.finding import Finding, Pitfall

PITFALL = Pitfall(
    code="shared-learning-rate",
    scope="comparison",
    looks_for="One learning rate for strategies that want unlike ones: it suits one and makes another look worse than it is.",
    threshold="Two strategies or more are trained with one rate, their own defaults differ, and `compare.training` gives none of them a rate of its own. Not said with `compare.held_equal: tuned`. Said before the runs.",
)


def shared_learning_rate(
    rates: Mapping[str, float], defaults: Mapping[str, float]
) -> Finding | None:
    """Look whether strategies whose defaults differ share a learning rate.

    Args:
        rates: what each strategy is trained with, of those that were given none of their own.
        defaults: what each wants where a recipe is silent.
    """
    groups = ([name for name, its in rates.items() if its == rate] for rate in rates.values())
    sharing = [names for names in groups if len({defaults[name] for name in names}) > 1]
    if not sharing:
        return None
    names = sharing[0]
    shown = ", ".join(f"{name} {defaults[name]:g}" for name in names)
    return PITFALL.found(
        "warning",
        f"{', '.join(names[:-1])} and {names[-1]} share one learning rate, {rates[names[0]]:g}, although their defaults differ ({shown}): what suits one may make another learn nothing, or forget.",
        f"Leave training.learning_rate out, so that each has its default, or give each its own: compare.training.{names[0]}.learning_rate; peftune tune finds them.",
    )
