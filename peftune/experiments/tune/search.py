"""Search the hyper-parameters of several strategies with equal effort."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from optuna import Trial
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from peftune.data.documents import documents_sha256, load_documents
from peftune.data.task_data import Task, load_task
from peftune.errors import OutputFolderError, TrainingError, UsageError
from peftune.experiments.run_folder import write_json
from peftune.experiments.tune import tuning_results
from peftune.experiments.tune.study import (
    EXAMPLES,
    FAILURE,
    Search,
    Worker,
    open_storage,
    quiet_optuna,
    refuse_other_study,
)
from peftune.experiments.tune.trial import (
    WatchTrial,
    decoded,
    encoded,
    run_trial,
    suggest,
    value_of,
)
from peftune.experiments.tune.tuning_results import (
    TrialRecord,
    TunedStrategy,
    Tuning,
    edges_of,
    write_comparison,
    write_winner,
)
from peftune.files.lock import owned
from peftune.files.publishing import sweep
from peftune.files.reading import given_path
from peftune.models.fingerprint import base_fingerprint, find_sound_base
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_for_each, read_recipe, recipe_sha256, resolve
from peftune.recipe.overrides import Assignment, read_overrides
from peftune.recipe.resolve import tuned_metric
from peftune.recipe.schema import TuneSection
from peftune.recipe.search_space import (
    LEARNING_RATE,
    Space,
    space_of,
    tune_faults,
    value_at,
    with_parameters,
)
from peftune.recipe.task_type import LOWER_IS_BETTER
from peftune.recipe.yaml_document import Positions, raise_faults
from peftune.strategies import StrategyChoice
from peftune.strategies.base import name_of

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

    A trial trains as a run would and is scored on the validation rows; the test rows are not read.
    A search that was interrupted continues; several processes may share one folder, and each ends
    when all trials have ended. One process gives the same trials every time.

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
    """Read the recipe that is tuned, and the overrides for which its own strategy has no key."""
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


logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_STATES: Mapping[TrialState, tuning_results.TrialState] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True)
class _Entrant:
    """A strategy in the search.

    Args:
        recipe: resolved for the strategy.
        space: what is searched.
        search: its trials.
        task: rows without the test.
        metric: what is improved.
    """

    recipe: Recipe
    space: Space
    search: Search
    task: Task
    metric: str

    def objective(self, trial: Trial) -> float:
        """Train with the values of a trial."""
        recipe = with_parameters(self.recipe, suggest(trial, self.space))
        watch = WatchTrial(trial, metric=self.metric)
        try:
            return value_of(run_trial(recipe, self.task, watch), self.metric)
        finally:
            trial.set_user_attr(EXAMPLES, watch.examples)

    def found(self) -> TunedStrategy:
        """Read the whole budget from the study."""
        trials = [self._record(place, trial) for place, trial in enumerate(self.search.counted())]
        sign = -1 if self.search.maximize else 1
        ranked = sorted(
            (sign * trial.value, trial.number) for trial in trials if trial.value is not None
        )
        best = trials[ranked[0][1]] if ranked else None
        dimension = self.space.get(LEARNING_RATE)
        edges = edges_of(best.parameters, LEARNING_RATE, dimension) if best else []
        return TunedStrategy(self.search.strategy, best, trials, edges, recipe=None)

    def _record(self, place: int, trial: FrozenTrial) -> TrialRecord:
        return TrialRecord(
            number=place,
            state=_STATES[trial.state],
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            parameters=decoded(trial.params, self.space),
            examples=trial.user_attrs.get(EXAMPLES, 0),
            message=trial.user_attrs.get(FAILURE),
        )


@contextlib.contextmanager
def run_rounds(
    recipe: Recipe, own: Mapping[str, Recipe], folder: Path, *, overrides: Sequence[str] = ()
) -> Iterator[Sequence[TunedStrategy]]:
    """Run the trials that are missing, one of each strategy in turn, and wait for other processes.

    Inside of the `with` this process owns the folder: results are read and written by one process
    after the other.

    Args:
        recipe: the recipe that is tuned.
        own: the same, resolved for each strategy.
        folder: folder of the study.
        overrides: those that only some strategies have; part of the study's identity.

    Raises:
        PeftuneError: rows or base cannot be used, or the folder holds another study.
    """
    model = recipe.model
    source = find_sound_base(model.name_or_path, model.revision, max_length=model.max_length)
    task = load_task(recipe.data, recipe.task, with_test=False)
    recipe.task_type.refuse_label_mismatch(task.labels, recipe.training)
    identity = _identity(recipe, task, base_fingerprint(source.folder), overrides)
    with quiet_optuna(), contextlib.ExitStack() as stack:
        with _turn(folder):
            storage = open_storage(folder)
            refuse_other_study(storage, identity, folder)
            entrants = [_entrant(storage, one, task, identity) for one in own.values()]
            _refuse_smaller_budget(entrants, folder)
            worker = stack.enter_context(Worker(folder))
        _run(entrants, worker)
        with _turn(folder):
            sweep(folder)
            worker.remove_dead()
            yield [entrant.found() for entrant in entrants]


def _turn(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Own a folder, one process after the other."""
    return owned(folder, wait=lambda: None)


def _entrant(storage: JournalStorage, recipe: Recipe, task: Task, identity: str) -> _Entrant:
    section, space = recipe.tune, space_of(recipe)
    metric = tuned_metric(recipe)
    start = {key: encoded(value_at(recipe, key), dimension) for key, dimension in space.items()}
    search = Search(
        storage,
        recipe.strategy.name,
        identity=identity,
        maximize=metric not in LOWER_IS_BETTER,
        trials=section.trials,
        seed=section.seed,
        start={key: value for key, value in start.items() if value is not None},
        prune=section.pruner == "median",
    )
    return _Entrant(recipe, space, search, task, metric)


def _refuse_smaller_budget(entrants: Sequence[_Entrant], folder: Path) -> None:
    """Refuse a budget below what is there: the strategies would not have an equal one."""
    for entrant in entrants:
        held, asked = len(entrant.search.counted()), entrant.search.budget
        if held > asked:
            message = f"'{folder}' holds {held} trials of '{entrant.search.strategy}', more than the {asked} asked for. Ask for {held} with --trials, or choose another folder with --output."
            raise OutputFolderError(message)


def _run(entrants: Sequence[_Entrant], worker: Worker) -> None:
    """Run trials, one of each strategy in turn, until those of other processes have ended too."""
    waiting = False
    while True:
        begun = False
        for entrant in entrants:
            trial = entrant.search.begin(worker)
            if trial is not None:
                begun = True
                entrant.search.run(trial, entrant.objective)
        if begun:
            continue
        if not any(entrant.search.is_running() for entrant in entrants):
            return
        if not waiting:
            logger.info("waiting for the trials of other processes")
        waiting = True
        time.sleep(_POLL_SECONDS)


def _identity(recipe: Recipe, task: Task, base: str, overrides: Sequence[str]) -> str:
    """Hash what the values of a trial depend on; the number of trials may change."""
    section = recipe.tune.model_copy(update={"trials": TuneSection().trials})
    texts = [
        documents_sha256(load_documents(source))
        for term in recipe.forgetting.regularizers
        for source in term.sources().values()
    ]
    parts = [recipe_sha256(recipe.model_copy(update={"tune": section})), task.fingerprint(), base]
    return hashlib.sha256("\n".join([*parts, *texts, *overrides]).encode()).hexdigest()
