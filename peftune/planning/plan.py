"""Plan a recipe: every strategy on every shape, before any base is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftune.errors import PeftuneError, first_line
from peftune.models.prepare import refuse_nothing_to_learn
from peftune.models.source import check_length
from peftune.planning.planner import Planner
from peftune.planning.results import Plan
from peftune.planning.shapes import OWN, SIZES, describe_base, shapes_of
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_recipe, resolve
from peftune.recipe.overrides import Assignment, assignments_for_each, read_overrides
from peftune.strategies import STRATEGIES, StrategyChoice
from peftune.strategies.registry import class_of, name_of


@working("planning")
def plan(
    recipe: str | Path | Recipe,
    *,
    overrides: Overrides = (),
    strategies: Sequence[StrategyChoice] | None = None,
    sizes: Sequence[str] = SIZES,
) -> Plan:
    """Work out what a recipe would need, on this machine, of memory, time and disk.

    Nothing is trained, and no weight of a base is read: one random block of each shape takes the
    place of all of them.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments, such as `training.per_device_train_batch_size=4`, or a
            mapping. A hyper-parameter that only some strategies have is set in those.
        strategies: names or strategies; all that are installed where they are not given.
        sizes: `own` for the recipe's base, and published sizes of GPT-2: `small`, `medium`,
            `large`, `xl`.

    Raises:
        PeftuneError: with one line that says what is wrong and what to do.
    """
    assignments = read_overrides(overrides)
    chosen = read_recipe(recipe, [one for one in assignments if one.strategy_field is None])
    source = describe_base(chosen.model.name_or_path, chosen.model.revision)
    shapes = shapes_of(source, (OWN, *sizes))
    recipes, unplanned = _with_each(recipe, assignments, strategies)
    check_length(source, chosen.model.max_length)
    planner = Planner.of(resolve(chosen), source, shapes)
    return planner.plan(recipes, unplanned, shown=sizes)


def _with_each(
    recipe: str | Path | Recipe,
    assignments: Sequence[Assignment],
    strategies: Sequence[StrategyChoice] | None,
) -> tuple[dict[str, Recipe], dict[str, str]]:
    """Put each strategy into a recipe; those that cannot be are returned with the reason.

    A strategy that is asked for by name is not passed over: its fault is raised.
    """
    found: dict[str, Recipe] = {}
    unplanned: dict[str, str] = {}
    classes, broken = STRATEGIES.load_all()
    chosen = list(classes) if strategies is None else strategies
    own = assignments_for_each(assignments, [class_of(choice) for choice in chosen])
    for choice in STRATEGIES.names() if strategies is None else chosen:
        name = name_of(choice)
        try:
            if strategies is None and name in broken:
                raise broken[name]
            found[name] = resolve(read_recipe(recipe, own[name], strategy=choice))
            refuse_nothing_to_learn(found[name].strategy, found[name].task)
        except PeftuneError as error:
            if strategies is not None:
                raise
            found.pop(name, None)
            unplanned[name] = first_line(error)
    return found, unplanned
