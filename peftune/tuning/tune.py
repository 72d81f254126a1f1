"""Search the hyper-parameters of several strategies with equal effort."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from peftune.errors import TrainingError, UsageError
from peftune.progress import working
from peftune.recipe import Recipe, read_recipe, resolve, with_strategy
from peftune.recipe.locate import anchor_paths
from peftune.recipe.positions import Positions, raise_faults
from peftune.recipe.resolve import tuned_metric
from peftune.recipe.space import space_of, tune_faults, with_parameters
from peftune.runs.folder import write_json
from peftune.tuning.results import TunedStrategy, Tuning
from peftune.tuning.winner import write_comparison, write_winner

RESULT = "tuning.json"


@working("searching")
def tune(
    recipe: str | Path | Recipe,
    *,
    strategies: Sequence[str] = (),
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    trials: int | None = None,
) -> Tuning:
    """Search the recipe's `tune.space` for each strategy, with the same number of trials.

    A trial trains as a run would and is judged on the validation rows; the test rows are not read.
    A search that was interrupted goes on; several processes may share one folder, and each ends
    when all trials have. One process gives the same trials every time.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        strategies: strategy names; none: the recipe's own.
        overrides: `key=value` assignments, such as `training.max_steps=100`.
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
    chosen = _chosen(recipe, overrides, trials)
    if chosen.stages:
        message = "A search trains the recipe's own task alone, and this recipe has stages. Run them first, and name the last one's artifact in model.init_from in their place."
        raise UsageError(message)
    names = tuple(strategies) or (chosen.strategy.name,)
    if len(set(names)) < len(names):
        message = f"A search needs strategies, each once (got {', '.join(names)})."
        raise UsageError(message)
    own = {name: _own_recipe(chosen, name) for name in names}
    folder = Path(output) if output is not None else Path(f"{chosen.output_dir}-tune")
    from peftune.tuning.rounds import run_rounds

    found = run_rounds(chosen, own, folder)
    tuning = _with_recipes(chosen, own, found, folder)
    write_json(tuning.as_json(), folder / RESULT)
    if not any(tuned.best for tuned in tuning.strategies):
        raise TrainingError(tuning.strategies[-1].why_without_winner())
    return tuning


def _chosen(recipe: str | Path | Recipe, overrides: Sequence[str], trials: int | None) -> Recipe:
    if isinstance(recipe, Recipe):
        raise_faults(tune_faults({"tune": recipe.tune}, Positions("recipe")))
        chosen = anchor_paths(recipe, folder=Path.cwd(), overridden=set())
    else:
        chosen = read_recipe(recipe, overrides)
    if trials is None:
        return chosen
    if trials < 1:
        message = f"A search needs at least one trial (got {trials})."
        raise UsageError(message)
    return chosen.model_copy(update={"tune": chosen.tune.model_copy(update={"trials": trials})})


def _own_recipe(recipe: Recipe, strategy: str) -> Recipe:
    """Resolve the recipe for a strategy; what is searched stays in it.

    Raises:
        UsageError: there is nothing to search.
    """
    own = resolve(with_strategy(recipe, strategy)).model_copy(update={"tune": recipe.tune})
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
