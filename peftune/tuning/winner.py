"""The best values as recipes: one a strategy, and one that compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peftune.errors import RecipeError
from peftune.recipe import Recipe, resolve, with_strategy, write_recipe
from peftune.recipe.tune import TuneSection

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
