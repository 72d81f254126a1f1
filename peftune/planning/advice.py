"""What follows from a plan, in sentences that hold on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftune.planning.results import StrategyPlan

WORTH = 0.1
"""Share of the peak from which holding the base in 8 bits is said to pay."""

_GIB = 2**30


def advise(
    plans: Sequence[StrategyPlan], *, available: int, checkpointing: bool, base: str
) -> list[str]:
    """Say whether 8 bits pay, and whether everything fits.

    Args:
        plans: all of them.
        available: bytes that a run can have.
        checkpointing: whether the recipe asks for activation checkpointing.
        base: what the recipe's base is called.
    """
    return [*_of_integers(plans, base), *_of_fitting(plans, available, checkpointing)]


def _of_integers(plans: Sequence[StrategyPlan], base: str) -> Iterator[str]:
    """Compare each strategy on integers with the one that learns as much on floats."""
    pairs: dict[tuple[str, str], dict[str, float]] = {}
    for plan in plans:
        for other in plans:
            same = (other.size, other.learning_parameters) == (plan.size, plan.learning_parameters)
            if plan.integers and same and not other.integers:
                less = 1 - plan.memory.peak / other.memory.peak
                pairs.setdefault((plan.strategy, other.strategy), {})[plan.size] = less
    for (name, other_name), saved in pairs.items():
        sentence = f"{name} against {other_name}:"
        if "own" in saved:
            pays = "pays" if saved["own"] >= WORTH else "does not pay"
            sentence += f" {_percent(saved['own'])} of the peak memory at {base}, where it {pays};"
        published = [size for size in saved if size != "own"]
        worth = [size for size in published if saved[size] >= WORTH]
        listed = ", ".join(f"{size} {_percent(saved[size])}" for size in published)
        if worth:
            sentence += f" from GPT-2 {worth[0]} on it does ({listed})."
        elif published:
            sentence += f" at no published size of GPT-2 does it save a tenth ({listed})."
        yield sentence.rstrip(";") + ("" if published else ".")


def _percent(saved: float) -> str:
    return f"{saved:.0%} saved" if saved >= 0 else f"{-saved:.0%} more"


def _of_fitting(
    plans: Sequence[StrategyPlan], available: int, checkpointing: bool
) -> Iterator[str]:
    free = f"{available / _GIB:.1f} GiB that a run can have here"
    too_large = [plan for plan in plans if not plan.fits]
    if not too_large:
        needed = "is on" if checkpointing else "is not needed"
        yield f"Everything fits into the {free}; activation checkpointing {needed}."
        return
    for plan in too_large:
        sentence = (
            f"{plan.strategy} on {plan.base} needs {plan.memory.peak / _GIB:.1f} GiB of the {free}"
        )
        less = plan.checkpointed_peak
        if less is None:
            yield f"{sentence}, with activation checkpointing."
        elif less <= available:
            yield f"{sentence}; with training.activation_checkpointing=true {less / _GIB:.1f} GiB, which fits."
        else:
            yield f"{sentence}; even activation checkpointing, {less / _GIB:.1f} GiB, does not make it fit."
