"""Plan a recipe: every strategy on every shape, before any base is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftune.errors import PeftuneError, first_line
from peftune.models.prepare import check_length, refuse_nothing_to_learn
from peftune.planning.planner import Planner
from peftune.planning.results import Plan
from peftune.planning.shapes import OWN, SIZES, describe_base, shapes_of
from peftune.progress import working
from peftune.recipe import Recipe, read_recipe, resolve, with_strategy
from peftune.recipe.locate import anchor_paths
from peftune.strategies import STRATEGIES


@working("planning")
def plan(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    strategies: Sequence[str] | None = None,
    sizes: Sequence[str] = SIZES,
) -> Plan:
    """Work out what a recipe would need, on this machine, of memory, time and disk.

    Nothing is trained, and no weight of a base is read: one random block of each shape takes the
    place of all of them.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments, such as `training.per_device_train_batch_size=4`.
        strategies: names; all that are installed where they are not given.
        sizes: `own` for the recipe's base, and published sizes of GPT-2: `small`, `medium`,
            `large`, `xl`.

    Raises:
        PeftuneError: with one line that says what is wrong and what to do.
    """
    if isinstance(recipe, Recipe):
        chosen = anchor_paths(recipe, folder=Path.cwd(), overridden=set())
    else:
        chosen = read_recipe(recipe, overrides)
    source = describe_base(chosen.model.name_or_path, chosen.model.revision)
    shapes = shapes_of(source, (OWN, *sizes))
    recipes, unplanned = _with_each(chosen, strategies)
    check_length(source, chosen.model.max_length)
    planner = Planner.of(resolve(chosen), source, shapes)
    return planner.plan(recipes, unplanned, shown=sizes)


def _with_each(
    recipe: Recipe, names: Sequence[str] | None
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Put each strategy into a recipe; those that cannot be are returned with the reason.

    A strategy that is asked for by name is not passed over: its fault is raised.
    """
    found: dict[str, Recipe] = {}
    unplanned: dict[str, str] = {}
    for name in STRATEGIES.names() if names is None else dict.fromkeys(names):
        try:
            found[name] = resolve(with_strategy(recipe, name))
            refuse_nothing_to_learn(found[name].strategy, recipe.task)
        except PeftuneError as error:  # noqa: PERF203 - one fault stops no other strategy
            if names is not None:
                raise
            found.pop(name, None)
            unplanned[name] = first_line(error)
    return found, unplanned
