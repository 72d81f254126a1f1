"""What a plan says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftune.display import Block, Displayed, data_frame
from peftune.planning.memory import Memory

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class StrategyPlan:
    """One strategy on one shape.

    Args:
        strategy: its name.
        size: `own`, or a published size of GPT-2.
        base: what the shape is called.
        learning_parameters: weights that learn.
        base_parameters: weights of the base without a head.
        computes_in: type that products are computed in.
        integers: whether the base is held in 8-bit integers.
        memory: the peak of a run and its parts, in bytes.
        artifact_bytes: what is saved.
        disk_bytes: most that a run's checkpoints and artifact take at any time; with fewer than
            three evaluations they take less.
        seconds_per_step: of an optimizer step on a batch of the mean size.
        seconds_per_epoch: of the steps of an epoch, without evaluations; None where the number of
            rows is not known.
        fits: whether the peak is at most what is available.
        checkpointed_peak: the peak with activation checkpointing, where it does not fit without.
    """

    strategy: str
    size: str
    base: str
    learning_parameters: int
    base_parameters: int
    computes_in: str
    integers: bool
    memory: Memory
    artifact_bytes: int
    disk_bytes: int
    seconds_per_step: float
    seconds_per_epoch: float | None
    fits: bool
    checkpointed_peak: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Plan(Displayed):
    """What a recipe would need, for each strategy and shape.

    Args:
        recipe: its name.
        device: `cpu`, or the name of the GPU.
        threads: that torch computes with.
        available_bytes: memory that a run can have.
        products: measured multiplications and additions a second, in units of 1e9, by type and
            width.
        copied: measured bytes a second that are read and written, in units of 1e9.
        batch_size: rows of a forward pass.
        lengths: where the lengths of the texts come from.
        plans: shape by shape, strategy by strategy.
        unplanned: strategies that cannot be planned, with the reason.
        advice: what follows, in sentences.
    """

    recipe: str
    device: str
    threads: int
    available_bytes: int
    products: Mapping[str, Mapping[int, float]]
    copied: float
    batch_size: int
    lengths: str
    plans: Sequence[StrategyPlan]
    unplanned: Mapping[str, str]
    advice: Sequence[str]

    def of(self, strategy: str, size: str = "own") -> StrategyPlan:
        """Return the plan of a strategy on a shape.

        Raises:
            KeyError: there is none.
        """
        for plan in self.plans:
            if (plan.strategy, plan.size) == (strategy, size):
                return plan
        raise KeyError((strategy, size))

    def _blocks(self) -> Iterator[Block]:
        yield f"Plan of {self.recipe} on {self.device}, {self.available_bytes / _GIB:.1f} GiB free"
        yield [
            {
                "base": one.base,
                "strategy": one.strategy,
                "peak": f"{one.memory.peak / _GIB:.2f} GiB",
                "fits": "yes" if one.fits else "no",
                "artifact": f"{one.artifact_bytes:,} bytes",
                "epoch": "-"
                if one.seconds_per_epoch is None
                else f"{one.seconds_per_epoch:.0f} s",
            }
            for one in self.plans
        ]
        yield "\n".join(self.advice)
        yield "\n".join(f"not planned: {name} ({why})" for name, why in self.unplanned.items())

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a strategy and base, with a column `memory.…` for each part of the peak."""
        rows = (dataclasses.asdict(one) for one in self.plans)
        return data_frame(
            {**row, **{f"memory.{key}": value for key, value in row.pop("memory").items()}}
            for row in rows
        )

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return dataclasses.asdict(self)


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
