"""Trials in rounds: every strategy has one trial before any has the next."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna import Trial
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from peftune.data.documents import documents_sha256, load_documents
from peftune.data.task import Task, load_task
from peftune.errors import OutputFolderError
from peftune.files.lock import owned
from peftune.files.publish import sweep
from peftune.models.fingerprint import base_fingerprint, find_sound_base
from peftune.recipe import Recipe, recipe_sha256
from peftune.recipe.resolve import tuned_metric
from peftune.recipe.space import LEARNING_RATE, Space, space_of, value_at, with_parameters
from peftune.recipe.task import refuse_label_mismatch
from peftune.recipe.tune import TuneSection
from peftune.tasks.judge import LOWER_IS_BETTER
from peftune.tuning import results
from peftune.tuning.interrupts import Interrupts
from peftune.tuning.results import TrialRecord, TunedStrategy, edges_of
from peftune.tuning.sampler import FAILURE
from peftune.tuning.study import (
    Search,
    examples_of,
    open_storage,
    quiet_optuna,
    refuse_other_study,
)
from peftune.tuning.trial import WatchTrial, decoded, encoded, run_trial, suggest, value_of

logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_STATES: Mapping[TrialState, results.TrialState] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True)
class _Entrant:
    """One strategy in the search.

    Args:
        recipe: resolved for it.
        space: what is searched.
        search: its trials.
        task: rows without the test.
        metric: what is improved.
        interrupts: signals that end the search.
    """

    recipe: Recipe
    space: Space
    search: Search
    task: Task
    metric: str
    interrupts: Interrupts

    def objective(self, trial: Trial, count: Callable[[int], None]) -> float:
        """Train with the values of a trial."""
        recipe = with_parameters(self.recipe, suggest(trial, self.space))
        watch = WatchTrial(trial, metric=self.metric, interrupts=self.interrupts)
        try:
            return value_of(run_trial(recipe, self.task, watch), self.metric)
        finally:
            count(watch.examples)

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
            examples=examples_of(trial),
            message=trial.user_attrs.get(FAILURE),
        )


@contextlib.contextmanager
def run_rounds(
    recipe: Recipe, own: Mapping[str, Recipe], folder: Path, *, overrides: Sequence[str] = ()
) -> Iterator[Sequence[TunedStrategy]]:
    """Run what is missing of the trials, one a strategy in turn, and wait for other processes.

    Inside of the `with` this process owns the folder: what was found is read and written by one
    process after the other.

    Args:
        recipe: the recipe that is tuned.
        own: the same, resolved for each strategy.
        folder: folder of the study.
        overrides: what some strategies have beyond the recipe's own; part of the study's identity.

    Raises:
        PeftuneError: rows or base cannot be used, or the folder holds another study.
    """
    model = recipe.model
    source = find_sound_base(model.name_or_path, model.revision, max_length=model.max_length)
    task = load_task(recipe.data, recipe.task, with_test=False)
    refuse_label_mismatch(recipe.task, task.labels, recipe.training)
    identity = _identity(recipe, task, base_fingerprint(source.folder), overrides)
    with quiet_optuna(), Interrupts() as interrupts:
        storage = open_storage(folder)
        try:
            refuse_other_study(storage, identity, folder)
            entrants = [
                _entrant(storage, resolved, task, identity, interrupts)
                for resolved in own.values()
            ]
            _refuse_smaller_budget(entrants, folder)
            _run(entrants, interrupts)
            with owned(folder, wait=interrupts.check):
                sweep(folder)
                yield [entrant.found() for entrant in entrants]
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _entrant(
    storage: RDBStorage, recipe: Recipe, task: Task, identity: str, interrupts: Interrupts
) -> _Entrant:
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
    return _Entrant(recipe, space, search, task, metric, interrupts)


def _refuse_smaller_budget(entrants: Sequence[_Entrant], folder: Path) -> None:
    """Strategies that were searched for longer have no equal budget with the others."""
    for entrant in entrants:
        held, asked = len(entrant.search.counted()), entrant.search.budget
        if held > asked:
            message = f"'{folder}' holds {held} trials of '{entrant.search.strategy}', more than the {asked} asked for. Ask for {held} with --trials, or choose another folder with --output."
            raise OutputFolderError(message)


def _run(entrants: Sequence[_Entrant], interrupts: Interrupts) -> None:
    waiting = False
    while True:
        unfinished = [entrant for entrant in entrants if entrant.search.is_open()]
        for entrant in unfinished:
            entrant.search.run_one(entrant.objective)
            interrupts.check()
        if not unfinished:
            if not any(entrant.search.is_running() for entrant in entrants):
                return
            if not waiting:
                logger.info("waiting for the trials of other processes")
            waiting = True
            time.sleep(_POLL_SECONDS)
            interrupts.check()


def _identity(recipe: Recipe, task: Task, base: str, overrides: Sequence[str]) -> str:
    """Hash what the values of a trial rest on; how many trials there are may change."""
    section = recipe.tune.model_copy(update={"trials": TuneSection().trials})
    texts = [
        documents_sha256(load_documents(source))
        for term in recipe.forgetting.regularizers
        for source in term.sources().values()
    ]
    parts = [recipe_sha256(recipe.model_copy(update={"tune": section})), task.fingerprint(), base]
    return hashlib.sha256("\n".join([*parts, *texts, *overrides]).encode()).hexdigest()
