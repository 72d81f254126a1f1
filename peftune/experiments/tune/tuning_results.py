"""What a search found: the best values of each strategy, what they cost, and every trial."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftune.display import Block, Displayed, data_frame
from peftune.errors import RecipeError
from peftune.recipe import Recipe, resolve, with_strategy, write_recipe
from peftune.recipe.schema import Dimension, TuneSection

if TYPE_CHECKING:
    import pandas as pd

NEAR_EDGE = 0.05
"""Share of a range, at either end, in which the best value is called at the edge."""

TrialState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Edge:
    """A best learning rate at the end of what was searched: a better one may lie beyond.

    Args:
        key: the dotted key.
        value: the best value.
        low: smallest value searched.
        high: largest value searched.
        side: which end it lies at.
    """

    key: str
    value: float
    low: float
    high: float
    side: Literal["low", "high"]

    def __str__(self) -> str:
        """Tell it in one sentence, with what to do."""
        return (
            f"the best {self.key}, {self.value:.2g}, lies at the {self.side} end of "
            f"[{self.low:.2g}, {self.high:.2g}]; a better one may lie beyond. "
            "Widen its range in tune.space."
        )


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of the budget.

    Args:
        number: place in the budget, from 0; trial 0 has the recipe's own values.
        state: how it ended.
        value: the metric of the checkpoint that a run would keep, for a complete trial.
        parameters: values by dotted key.
        examples: rows read in training, repeats counted.
        message: why it failed.
    """

    number: int
    state: TrialState
    value: float | None
    parameters: Mapping[str, Any]
    examples: int
    message: str | None = None


@dataclass(frozen=True, slots=True)
class TunedStrategy:
    """What was found for one strategy.

    Args:
        strategy: its name.
        best: the best complete trial, the first of equals; None where none completed.
        trials: the whole budget, in order.
        edges: best learning rate at the end of its range.
        recipe: the winner as a recipe; None without a winner.
    """

    strategy: str
    best: TrialRecord | None
    trials: Sequence[TrialRecord]
    edges: Sequence[Edge]
    recipe: Path | None

    @property
    def value(self) -> float | None:
        """The best value of the metric."""
        return self.best.value if self.best else None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The best values, by dotted key; empty where no trial completed."""
        return self.best.parameters if self.best else {}

    @property
    def examples_seen(self) -> int:
        """Rows read in training in all trials, repeats counted."""
        return sum(trial.examples for trial in self.trials)

    def why_without_winner(self) -> str:
        """Say in one line why there is no best trial."""
        last = [trial.message for trial in self.trials if trial.message][-1:]
        return f"No trial of '{self.strategy}' finished, of {len(self.trials)}. The last failure: {''.join(last)}"

    def count(self, state: TrialState) -> int:
        """Return how many trials ended in a state."""
        return sum(trial.state == state for trial in self.trials)


@dataclass(frozen=True, slots=True, repr=False)
class Tuning(Displayed):
    """What a search found for every strategy, with the same number of trials on the same rows.

    Args:
        folder: where the study, the winners and `tuning.json` lie.
        metric: the validation metric that was improved.
        trials: trials of each strategy.
        strategies: in the order in which they were asked for.
        compare: a recipe that compares the winners; None where there is none.
        reason: why there is none.
    """

    folder: Path
    metric: str
    trials: int
    strategies: Sequence[TunedStrategy]
    compare: Path | None
    reason: str | None = None

    def __getitem__(self, strategy: str) -> TunedStrategy:
        """Return what was found for a strategy."""
        for tuned in self.strategies:
            if tuned.strategy == strategy:
                return tuned
        raise KeyError(strategy)

    def _blocks(self) -> Iterator[Block]:
        yield f"Tuning in {self.folder}"
        yield tuning_rows(self)
        yield "\n".join(notes_of(self))

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a trial, with a column for each parameter."""
        return data_frame(
            {
                "strategy": tuned.strategy,
                "trial": trial.number,
                "state": trial.state,
                self.metric: trial.value,
                **trial.parameters,
                "examples": trial.examples,
                "message": trial.message,
            }
            for tuned in self.strategies
            for trial in tuned.trials
        )

    def as_json(self) -> dict[str, Any]:
        """Return the content of `tuning.json`; files are named relative to the folder."""
        return {
            "metric": self.metric,
            "trials": self.trials,
            "strategies": [_as_json(tuned) for tuned in self.strategies],
            "compare": self.compare and self.compare.name,
            "reason": self.reason,
        }


def edges_of(parameters: Mapping[str, Any], key: str, dimension: Dimension | None) -> list[Edge]:
    """Say whether the best value of a key lies at the end of its range, or of its choices."""
    value = parameters.get(key)
    if dimension is None or not isinstance(value, int | float):
        return []
    if dimension.choices is not None:
        numbers = [float(choice) for choice in dimension.choices if choice is not None]
        low, high, margin = min(numbers), max(numbers), 0.0
    else:
        low, high, margin = float(dimension.low or 0), float(dimension.high or 0), NEAR_EDGE
    scale = math.log if dimension.log else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    if margin < place < 1 - margin:
        return []
    return [Edge(key, float(value), low, high, "low" if place <= margin else "high")]


def _as_json(tuned: TunedStrategy) -> dict[str, Any]:
    return {
        "strategy": tuned.strategy,
        "value": tuned.value,
        "parameters": dict(tuned.parameters),
        "complete": tuned.count("complete"),
        "pruned": tuned.count("pruned"),
        "failed": tuned.count("failed"),
        "examples_seen": tuned.examples_seen,
        "edges": [dataclasses.asdict(edge) for edge in tuned.edges],
        "recipe": tuned.recipe and tuned.recipe.name,
        "trials": [dataclasses.asdict(trial) for trial in tuned.trials],
    }


COMPARE = "compare.yaml"


def write_winner(recipe: Recipe, folder: Path) -> Path:
    """Write the best recipe of a strategy.

    Args:
        recipe: resolved, with the best values; it keeps its own seed.
        folder: folder of the study.
    """
    name = recipe.strategy.name
    path = folder / f"{name}.yaml"
    header = (
        f"# The best values found for {name}, every default filled in. Run it with\n"
        f"#   peftune run {path.name}\n"
    )
    place = f"{recipe.output_dir}-tuned-{name}"
    write_recipe(recipe.model_copy(update={"output_dir": place}), path, header=header)
    return path


def write_comparison(
    recipe: Recipe, winners: Mapping[str, Recipe], *, trials: int, folder: Path
) -> tuple[Path | None, str | None]:
    """Write a recipe that compares the winners, each with its own values.

    Args:
        recipe: the recipe that was tuned.
        winners: resolved, by strategy name.
        trials: trials of each strategy.
        folder: folder of the study.

    Returns:
        The file; or None and the reason why a comparison cannot have these values.
    """
    path = folder / COMPARE
    reason = _write_candidate(recipe, winners, trials, path)
    if reason is not None:
        path.unlink(missing_ok=True)
        return None, reason
    return path, None


def _write_candidate(
    recipe: Recipe, winners: Mapping[str, Recipe], trials: int, path: Path
) -> str | None:
    """Write the first recipe that gives every winner its own values; say why none does."""
    if not winners:
        return "no strategy has a finished trial"
    if recipe.task != "single-label":
        return f"a comparison reads single-label tasks, and this is {recipe.task}"
    for candidate in _candidates(recipe, winners, trials):
        if all(_gives(candidate, name, winner) for name, winner in winners.items()):
            names = ",".join(winners)
            header = (
                "# The best values found for each strategy, with equal effort. Compare them with\n"
                f"#   peftune compare {path.name} --strategies {names} --seeds 0,1,2\n"
            )
            write_recipe(candidate, path, header=header)
            return None
    return "the best values of two strategies differ in a key of 'strategy' that both have, and a comparison takes such a key from one strategy; run the recipes one by one"


def _candidates(recipe: Recipe, winners: Mapping[str, Recipe], trials: int) -> Iterator[Recipe]:
    """Make the comparison with each winner's strategy in turn, the recipe's own first."""
    own = dict(recipe.compare.training)
    own |= {name: {**own.get(name, {}), **_own(recipe, best)} for name, best in winners.items()}
    values = {
        "training": own,
        "held_equal": "tuned",
        "tuning_budget": dict.fromkeys(winners, trials),
    }
    compare = recipe.compare.model_copy(update=values)
    first = [name for name in winners if name == recipe.strategy.name]
    for name in dict.fromkeys([*first, *winners]):
        strategy = winners[name].strategy
        # A written recipe names every field, and those that another strategy has hold for it too.
        named = type(strategy).model_validate(
            {field: getattr(strategy, field) for field in type(strategy).model_fields}
        )
        yield recipe.model_copy(
            update={
                "strategy": named,
                "compare": compare,
                "tune": TuneSection(),
                "output_dir": f"{recipe.output_dir}-tuned",
            }
        )


def _own(recipe: Recipe, best: Recipe) -> dict[str, Any]:
    """List the keys of `training` in which a winner differs from what its strategy has there."""
    before = resolve(with_strategy(recipe, best.strategy.name)).training.model_dump()
    found = best.training.model_dump()
    return {name: value for name, value in found.items() if before[name] != value}


def _gives(candidate: Recipe, name: str, winner: Recipe) -> bool:
    try:
        cell = resolve(with_strategy(candidate, name))
    except RecipeError:
        return False
    return cell.strategy == winner.strategy and cell.training == winner.training


LEGEND = "Values of the best trial, on the validation rows; the test rows were not read."


def tuning_rows(tuning: Tuning) -> list[dict[str, str]]:
    """One row a strategy: the best value, what gave it, and what it took."""
    return [
        {
            "strategy": tuned.strategy,
            tuning.metric: "-" if tuned.value is None else f"{tuned.value:.4f}",
            "parameters": _parameters(tuned.parameters),
            "complete": str(tuned.count("complete")),
            "pruned": str(tuned.count("pruned")),
            "failed": str(tuned.count("failed")),
            "examples seen": f"{tuned.examples_seen:,}",
        }
        for tuned in tuning.strategies
    ]


def notes_of(tuning: Tuning) -> list[str]:
    """Tell, a line each, what lies at an edge, what is to be run next, and what is missing."""
    lines = [f"{tuned.strategy}: {edge}" for tuned in tuning.strategies for edge in tuned.edges]
    lines += [_next(tuned) for tuned in tuning.strategies]
    if tuning.compare is not None:
        names = ",".join(tuned.strategy for tuned in tuning.strategies if tuned.best)
        lines.append(f"To compare: peftune compare {tuning.compare} --strategies {names}")
    elif tuning.reason:
        lines.append(f"No recipe for a comparison: {tuning.reason}.")
    return lines


def _next(tuned: TunedStrategy) -> str:
    if tuned.recipe is None:
        return tuned.why_without_winner()
    return f"{tuned.strategy}: peftune run {tuned.recipe}"


def _parameters(parameters: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.partition('.')[2]} {_short(value)}" for key, value in parameters.items()
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
