"""Search the hyper-parameters of several strategies with equal effort."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from peftune.errors import TrainingError, UsageError
from peftune.files.paths import given_path
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_for_each, read_recipe, resolve
from peftune.recipe.overrides import Assignment, read_overrides
from peftune.recipe.positions import Positions, raise_faults
from peftune.recipe.resolve import tuned_metric
from peftune.recipe.space import space_of, tune_faults, with_parameters
from peftune.runs.folder import write_json
from peftune.strategies import StrategyChoice
from peftune.strategies.registry import name_of
from peftune.tuning.results import TunedStrategy, Tuning
from peftune.tuning.winner import write_comparison, write_winner

RESULT = "tuning.json"


@working("searching")
def tune(
    recipe: str | Path | Recipe,
    *,
    strategies: Sequence[StrategyChoice] = (),
    overrides: Overrides = (),
    output: str | Path | None = None,
    trials: int | None = None,
) -> Tuning:
    """Search the recipe's `tune.space` for each strategy, with the same number of trials.

    A trial trains as a run would and is judged on the validation rows; the test rows are not read.
    A search that was interrupted goes on; several processes may share one folder, and each ends
    when all trials have. One process gives the same trials every time.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        strategies: names or strategies, each of another name; none: the recipe's own.
        overrides: `key=value` assignments, such as `training.max_steps=100`, or a mapping. A
            hyper-parameter that only some of the strategies have is set in those.
        output: folder of the study, in the place of the recipe's `output_dir` with `-tune`.
        trials: trials of each strategy, in the place of `tune.trials`.

    Returns:
        What was found, as written to the folder's `tuning.json`, with the winners as recipes.

    Raises:
        PeftuneError: the recipe or an argument is wrong, the folder holds another study, or no
            trial of any strategy finished.
    """
    _require_optuna()
    _refuse_several_processes()
    assignments = read_overrides(overrides)
    chosen, others = _chosen(recipe, assignments, trials, several=bool(strategies))
    if chosen.stages:
        message = "A search trains the recipe's own task alone, and this recipe has stages. Run them first, and name the last one's artifact in model.init_from in their place."
        raise UsageError(message)
    names = [name_of(choice) for choice in strategies] or [chosen.strategy.name]
    if len(set(names)) < len(names):
        message = f"A search needs strategies, each once (got {', '.join(names)})."
        raise UsageError(message)
    for_each = read_for_each(recipe, assignments, strategies) if strategies else {names[0]: chosen}
    own = {name: _own_recipe(one, chosen) for name, one in for_each.items()}
    folder = (
        given_path(output, "output") if output is not None else Path(f"{chosen.output_dir}-tune")
    )
    from peftune.tuning.rounds import run_rounds

    with run_rounds(chosen, own, folder, overrides=others) as found:
        tuning = _with_recipes(chosen, own, found, folder)
        write_json(tuning.as_json(), folder / RESULT)
    if not any(tuned.best for tuned in tuning.strategies):
        raise TrainingError(tuning.strategies[-1].why_without_winner())
    return tuning


def _chosen(
    recipe: str | Path | Recipe,
    assignments: Sequence[Assignment],
    trials: int | None,
    *,
    several: bool,
) -> tuple[Recipe, list[str]]:
    """Read the recipe as it is tuned, and the overrides that its own strategy has no key for."""
    if isinstance(recipe, Recipe):
        raise_faults(tune_faults({"tune": recipe.tune}, Positions("recipe")))
    if not several:
        return _with_trials(read_recipe(recipe, assignments), trials), []
    shared = [one for one in assignments if one.strategy_field is None]
    fields = type(read_recipe(recipe, shared).strategy).model_fields
    own = [one for one in assignments if one.strategy_field in (None, *fields)]
    others = [f"{one.key}={one.value!r}" for one in assignments if one not in own]
    return _with_trials(read_recipe(recipe, own), trials), others


def _with_trials(chosen: Recipe, trials: int | None) -> Recipe:
    if trials is None:
        return chosen
    if trials < 1:
        message = f"A search needs at least one trial (got {trials})."
        raise UsageError(message)
    return chosen.model_copy(update={"tune": chosen.tune.model_copy(update={"trials": trials})})


def _own_recipe(recipe: Recipe, tuned: Recipe) -> Recipe:
    """Resolve the recipe of a strategy; what is searched stays in it.

    Raises:
        UsageError: there is nothing to search.
    """
    strategy = recipe.strategy.name
    own = resolve(recipe).model_copy(update={"tune": tuned.tune})
    if not space_of(own):
        message = f"tune.space names no key that '{strategy}' has. Add one, such as training.learning_rate, or leave '{strategy}' out."
        raise UsageError(message)
    return own


def _with_recipes(
    recipe: Recipe, own: Mapping[str, Recipe], found: Sequence[TunedStrategy], folder: Path
) -> Tuning:
    """Write the winners."""
    best = {
        tuned.strategy: resolve(with_parameters(own[tuned.strategy], tuned.parameters))
        for tuned in found
        if tuned.best
    }
    compare, reason = write_comparison(recipe, best, trials=recipe.tune.trials, folder=folder)
    return Tuning(
        folder=folder,
        metric=tuned_metric(recipe),
        trials=recipe.tune.trials,
        strategies=[
            dataclasses.replace(tuned, recipe=write_winner(best[tuned.strategy], folder))
            if tuned.best
            else tuned
            for tuned in found
        ],
        compare=compare,
        reason=reason,
    )


def _require_optuna() -> None:
    if find_spec("optuna") is None:
        message = "Tuning needs optuna, which is not installed. Run: pip install 'peftune[tune]'"
        raise UsageError(message)


def _refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        message = "peftune tune uses one process for a trial. Start it several times with the same --output instead; the processes share the trials."
        raise UsageError(message)
