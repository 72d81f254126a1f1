"""The study of one strategy: a budget of trials in a SQLite file that processes may share."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna import Study, Trial, TrialPruned
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from peftune.errors import OutputFolderError, PeftuneError
from peftune.files.lock import LOCK
from peftune.seeds import stream_seed

WORKER = "worker"
"""Attribute of a trial: the process that began it; of a study, with an id, each that took part."""

_PROCESS = uuid.uuid4().hex


def this_process() -> dict[str, Any]:
    """Name this process, so that another one can tell whether it lives; no host is named."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:16]
    return {"machine": machine, "pid": os.getpid(), "process": _PROCESS}


def is_this_process(worker: Mapping[str, Any]) -> bool:
    """Say whether a name is that of this process."""
    return bool(worker["process"] == _PROCESS)


def may_live(worker: Mapping[str, Any]) -> bool:
    """Say whether a process may be alive.

    Where it cannot be told, as of a process on another machine, the answer is yes, and the
    heartbeat of the storage decides.
    """
    if worker["machine"] != this_process()["machine"] or os.name != "posix":
        return True
    if worker["pid"] == os.getpid():  # this process, or one that had its number
        return is_this_process(worker)
    try:
        os.kill(worker["pid"], 0)  # asks whether there is such a process; nothing is sent
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


FAILURE = "failure"
"""Attribute of a trial that failed by itself, with the reason."""


def abandoned(trial: FrozenTrial) -> bool:
    """Say whether a trial ended with its process, so that it is made up for: it counts as none."""
    return trial.state == TrialState.FAIL and FAILURE not in trial.user_attrs


def place_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """Return the place of a trial in the budget, from 0: how many before it count.

    The storage numbers trials one by one, also for processes that share it, so that no two
    trials that count have the same place.
    """
    return sum(other.number < trial.number and not abandoned(other) for other in trials)


class PlaceSampler(BaseSampler):
    """Sample with TPE, seeded anew for each place in the budget; place 0 is the recipe as written.

    Optuna stores no random state: a sampler that is seeded once would draw the values of the
    first trials again when a search goes on in another process.

    Args:
        seed: seed of the search.
        start: the recipe's own values by key, those that lie in their ranges.
    """

    def __init__(self, seed: int, *, start: Mapping[str, Any]) -> None:
        self._seed = seed
        self._start = start
        self._place = 0
        self._inner = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed by the place of the trial."""
        self._place = place_of(trial, study.get_trials(deepcopy=False))
        self._inner = TPESampler(seed=stream_seed(self._seed, f"tuning/{self._place}"))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Sample jointly what TPE samples jointly."""
        if self._place == 0:
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample these keys jointly."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - any value of a recipe
        """Sample one key."""
        if self._place == 0 and param_name in self._start:
            return self._start[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell TPE that the trial has ended."""
        self._inner.after_trial(study, trial, state, values)


logger = logging.getLogger(__name__)

DATABASE = "study.db"

_IDENTITY = "identity"
_EXAMPLES = "examples"
_HEARTBEAT_SECONDS = 30
_SILENT_SECONDS = 180
_PATIENCE_SECONDS = 60
_ATTEMPTS = 5

Objective = Callable[[Trial, Callable[[int], None]], float]
"""Runs a trial and returns its value; calls its second argument with the rows it has read."""


def open_storage(folder: Path) -> RDBStorage:
    """Open the database of a folder, or make it.

    Raises:
        OutputFolderError: the folder holds something else, or cannot be written.
    """
    path = folder / DATABASE
    if folder.exists() and not folder.is_dir():
        message = f"'{folder}' is a file. Choose another output folder with --output."
        raise OutputFolderError(message)
    if (
        folder.is_dir()
        and any(one.name != LOCK for one in folder.iterdir())
        and not path.is_file()
    ):
        message = f"'{folder}' is not empty and holds no study. Choose another output folder with --output, or empty it."
        raise OutputFolderError(message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"'{folder}' cannot be written: {error.strerror}. Choose another output folder with --output."
        raise OutputFolderError(message) from error
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _storage(path)
        except (SQLAlchemyError, RuntimeError) as error:  # noqa: PERF203 - few attempts
            # Two processes that start together may both make the tables; the second finds them.
            if attempt == _ATTEMPTS:
                reason = str(getattr(error, "orig", error)).splitlines()[0]
                message = f"'{path}' cannot be used as a study ({reason}). Choose another output folder with --output, or remove it."
                raise OutputFolderError(message) from error
            time.sleep(0.1 * attempt)
    raise AssertionError


def refuse_other_study(storage: RDBStorage, identity: str, folder: Path) -> None:
    """Keep the studies of one recipe and its rows apart from those of another.

    Raises:
        OutputFolderError: the folder holds a study of something else.
    """
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        if summary.user_attrs.get(_IDENTITY, identity) != identity:
            message = f"'{folder}' holds the study of another recipe, or of other rows. Choose another folder with --output, or remove it."
            raise OutputFolderError(message)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let peftune tell what happens; optuna would print every value and a traceback a failure."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


class _TrialFailedError(Exception):
    """A trial failed by itself; the reason is in its attributes."""


class _SurplusTrialError(Exception):
    """Another process began the last trial of the budget at the same moment."""


class Search:
    """The trials of one strategy.

    Args:
        storage: the database.
        strategy: name of the strategy, and of its study.
        identity: hash of the recipe and its rows.
        maximize: whether a higher value is better.
        trials: the budget.
        seed: seed of the search.
        start: what the first trial tries, by key.
        prune: whether bad trials are given up early.
    """

    def __init__(
        self,
        storage: RDBStorage,
        strategy: str,
        *,
        identity: str,
        maximize: bool,
        trials: int,
        seed: int,
        start: Mapping[str, Any],
        prune: bool,
    ) -> None:
        self.strategy = strategy
        self.budget = trials
        self._study: Study = optuna.create_study(
            storage=storage,
            study_name=strategy,
            direction="maximize" if maximize else "minimize",
            sampler=PlaceSampler(seed, start=start),
            pruner=optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._study.set_user_attr(_IDENTITY, identity)
        process = this_process()
        self._study.set_user_attr(f"{WORKER} {process['process']}", process)
        self.maximize = maximize

    def counted(self) -> list[FrozenTrial]:
        """List the trials that use the budget, in order: all but those that are made up for."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if not abandoned(trial)]

    def is_open(self) -> bool:
        """Say whether a trial of the budget has not begun; what a dead process began is freed."""
        self._release_dead()
        return len(self.counted()) < self.budget

    def is_running(self) -> bool:
        """Say whether some process, such as another one, is at a trial."""
        return any(trial.state == TrialState.RUNNING for trial in self.counted())

    def run_one(self, objective: Objective) -> None:
        """Begin the next trial and see it to its end; a failure is recorded and stops nothing.

        An interrupt goes on; the trial that it ended is made up for by the next search.
        """
        with warnings.catch_warnings():
            # The heartbeat is marked experimental, and optuna says so at every use.
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.optimize(
                lambda trial: self._attempt(trial, objective),
                n_trials=1,
                catch=(_TrialFailedError, _SurplusTrialError),
            )

    def _attempt(self, trial: Trial, objective: Objective) -> float:
        place = place_of(_frozen(trial), self._study.get_trials(deepcopy=False))
        if place >= self.budget:
            raise _SurplusTrialError
        trial.set_user_attr(WORKER, this_process())
        name = f"[{self.strategy} {place + 1}/{self.budget}]"
        try:
            value = objective(trial, lambda rows: trial.set_user_attr(_EXAMPLES, rows))
        except TrialPruned:
            logger.info("%s given up: worse than the median at this point", name)
            raise
        except Exception as error:
            message = _first_line(error)
            logger.warning("%s failed: %s", name, message)
            trial.set_user_attr(FAILURE, message)
            raise _TrialFailedError from error
        logger.info("%s %.4f", name, value)
        return value

    def _release_dead(self) -> None:
        """Mark what a process left running when it was killed; one on another machine by its silence."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not any(may_live(worker) for worker in self._workers_of(trial)):
                with contextlib.suppress(ValueError, RuntimeError):  # another process was faster
                    self._study.tell(trial.number, state=TrialState.FAIL)

    def _workers_of(self, trial: FrozenTrial) -> list[Mapping[str, Any]]:
        """List the process of a running trial; all others, if it ended before it could tell."""
        if WORKER in trial.user_attrs:
            return [trial.user_attrs[WORKER]]
        processes = self._study.user_attrs.items()
        took_part = [process for name, process in processes if name.startswith(WORKER)]
        return [process for process in took_part if not is_this_process(process)]


def examples_of(trial: FrozenTrial) -> int:
    """Return the rows that a trial read in training."""
    return int(trial.user_attrs.get(_EXAMPLES, 0))


def _storage(path: Path) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            f"sqlite:///{path.resolve()}",
            engine_kwargs={"connect_args": {"timeout": _PATIENCE_SECONDS}},
            heartbeat_interval=_HEARTBEAT_SECONDS,
            grace_period=_SILENT_SECONDS,
        )


def _frozen(trial: Trial) -> FrozenTrial:
    trials = trial.study.get_trials(deepcopy=False)
    return next(other for other in trials if other.number == trial.number)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if isinstance(error, PeftuneError) else f"{type(error).__name__}: {line}"
