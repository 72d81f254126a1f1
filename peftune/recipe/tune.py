"""The `tune` part of a recipe: what is searched, how often, and by which metric."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from peftune.recipe.section import Section
from peftune.recipe.training import Metric
from peftune.seeds import MAX_SEED

Number = Annotated[int | float, Field(allow_inf_nan=False)]


class Dimension(Section):
    """The values that one key may take: a range, or a list."""

    low: Number | None = Field(None, description="Smallest value, included.")
    high: Number | None = Field(None, description="Largest value, included.")
    log: bool = Field(False, description="Search orders of magnitude rather than values.")
    step: Number | None = Field(
        None, gt=0, description="Distance of neighbouring values, counted from `low`."
    )
    choices: tuple[Any, ...] | None = Field(
        None, min_length=2, strict=False, description="The values themselves, instead of a range."
    )

    @model_validator(mode="after")
    def _is_a_range_or_a_list(self) -> Self:
        fault = _fault_of_list(self) if self.choices is not None else _fault_of_range(self)
        if fault:
            raise ValueError(fault)
        return self

    @property
    def whole(self) -> bool:
        """Whether the range holds whole numbers only: those that it is given are."""
        numbers = (self.low, self.high, self.step)
        return all(isinstance(number, int) for number in numbers if number is not None)


class StrategyTuneSection(Section):
    """What one strategy has for itself in a search."""

    space: dict[str, Dimension] = Field(
        default_factory=dict, description="Ranges in the place of the shared ones, by key."
    )


class TuneSection(Section):
    """How hyper-parameters are searched; the test rows take no part."""

    trials: int = Field(
        20, gt=0, description="Trials of each strategy; pruned and failed ones count."
    )
    metric: Metric | None = Field(
        None,
        description="Validation metric to improve; training.metric_for_best_model where it is null.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="Seed of the search; every trial trains with training.seed.",
    )
    pruner: Literal["median", "none"] = Field(
        "median",
        description="median: give a trial up whose validation curve lies below the median of the trials before.",
    )
    space: dict[str, Dimension] = Field(
        default_factory=dict,
        description="What is searched: keys such as training.learning_rate or strategy.r, each with {low, high}, {low, high, log: true}, {low, high, step} or {choices}; empty: learning rate, batch size and rank around the recipe's own.",
    )
    strategies: dict[str, StrategyTuneSection] = Field(
        default_factory=dict,
        description="What a strategy has for itself: `{full: {space: {…}}}`.",
    )


def _fault_of_list(dimension: Dimension) -> str:
    if {"low", "high", "log", "step"} & dimension.model_fields_set:
        return "needs either 'choices', or 'low' and 'high', and not both"
    written = [json.dumps(choice) for choice in dimension.choices or ()]
    return "'choices' names a value twice" if len(set(written)) < len(written) else ""


def _fault_of_range(dimension: Dimension) -> str:
    low, high, step = dimension.low, dimension.high, dimension.step
    if low is None or high is None:
        return "needs 'low' and 'high', or 'choices'"
    if low >= high:
        return f"'low' must be below 'high' (got {low} and {high})"
    if dimension.log:
        return _fault_of_log(low, step)
    steps = (high - low) / step if step is not None else 0.0
    if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
        return f"'high' must be whole steps above 'low' (got {low}, {high} and a step of {step})"
    return ""


def _fault_of_log(low: float, step: float | None) -> str:
    if low <= 0:
        return f"'log' needs 'low' above 0 (got {low})"
    return "" if step is None else "'log' and 'step' exclude each other"
