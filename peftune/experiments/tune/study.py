"""The study of one strategy: a budget of trials in a journal file that processes may share.

The journal is Optuna's `JournalStorage`, which is safe on network folders, where SQLite is not.
Optuna's heartbeat needs a relational database (`RDBStorage` alone has one, up to Optuna 5.0:
optuna/optuna#6615) and works in `Study.optimize` alone. So a `Worker` here says that a process
lives, and trials are begun and recorded one by one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import optuna
from optuna import Study, Trial, TrialPruned
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial
from typing_extensions import Self

from peftune.errors import OutputFolderError, PeftuneError, first_line
from peftune.files.lock import LOCK, has_ended, process_record
from peftune.seeds import stream_seed

logger = logging.getLogger(__name__)

JOURNAL = "study.journal"

EXAMPLES = "examples"
"""Attribute of a trial: how many rows it read in training."""

FAILURE = "failure"
"""Attribute of a trial that failed by itself: the reason."""

PLACE = "place"
"""Attribute of a trial: its place in the budget, from 0."""

WORKER = "worker"
"""Attribute of a trial: the worker that began it."""

_IDENTITY = "identity"
_WORKER_FILES = ".worker-"
_BEAT_SECONDS = 30
_SILENT_SECONDS = 180

_OLDER = "study.db"
"""What versions before the journal wrote."""


# Who works on a study


class Worker:
    """This process, as the others that share its folder see it: a file that it touches while it lives.

    A process of this machine that is killed is seen at once, one of another machine when its file
    has not been touched for three minutes, by the clock of the file system.

    Args:
        folder: folder of the study, which this process owns when it enters and when it removes
            what dead workers left.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"{_WORKER_FILES}{secrets.token_hex(8)}"
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        """Write the file, and touch it from now on."""
        (self._folder / self.name).write_text(json.dumps(process_record()), encoding="utf-8")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file."""
        self._stop.set()
        self._thread.join()
        (self._folder / self.name).unlink(missing_ok=True)

    def sees(self, name: str) -> bool:
        """Return whether a worker lives, as far as this process can know."""
        own, other = self._folder / self.name, self._folder / name
        try:
            own.touch()
            silent = own.stat().st_mtime - other.stat().st_mtime
            return silent < _SILENT_SECONDS and not has_ended(json.loads(other.read_bytes()))
        except (FileNotFoundError, ValueError):
            return False

    def remove_dead(self) -> None:
        """Remove the files of workers that do not live."""
        for path in self._folder.glob(f"{_WORKER_FILES}*"):
            if not self.sees(path.name):
                path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next beat may reach the folder again
                (self._folder / self.name).touch()


# The journal


class _JournalLock(JournalFileOpenLock):
    """Lock the journal, and cut a line that a crash left unfinished.

    The next line would be appended to it, and nobody could read the journal after that. This is
    the lock that opens a file exclusively, which NFS from version 3 on does atomically and can
    repeat when an answer is lost; a symbolic link is neither repeated safely nor known everywhere.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        """Wait for the lock."""
        taken = super().acquire()
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)
        return taken


def open_storage(folder: Path) -> JournalStorage:
    """Open the journal of a folder, or create it.

    Raises:
        OutputFolderError: the folder holds something else, or its journal cannot be read.
    """
    path = folder / JOURNAL
    names = {one.name for one in folder.iterdir() if not one.name.startswith(_WORKER_FILES)}
    if _OLDER in names:
        message = f"'{folder / _OLDER}' is the study of an older version of peftune, which is not read. Choose another output folder with --output, or remove it."
        raise OutputFolderError(message)
    if names - {LOCK} and JOURNAL not in names:
        message = f"'{folder}' is not empty and holds no study. Choose another output folder with --output, or empty it."
        raise OutputFolderError(message)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_JournalLock(path)))
        with path.open("rb") as file:
            for line in file:  # Optuna passes over the last line where it cannot read it
                json.loads(line if line.endswith(b"\n") else b"{}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"'{path}' cannot be used as a study ({first_line(error)}). Choose another output folder with --output, or remove it."
        raise OutputFolderError(message) from error
    return storage


def refuse_other_study(storage: JournalStorage, identity: str, folder: Path) -> None:
    """Keep the studies of one recipe and its rows apart from those of another.

    Raises:
        OutputFolderError: the folder holds a study of something else.
    """
    for study in storage.get_all_studies():
        if study.user_attrs.get(_IDENTITY, identity) != identity:
            message = f"'{folder}' holds the study of another recipe, or of other rows. Choose another folder with --output, or remove it."
            raise OutputFolderError(message)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let peftune report what happens, and Optuna errors alone."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


# The trials


class PlaceSampler(BaseSampler):
    """Sample with TPE, seeded for each place in the budget; place 0 is the recipe as written.

    Optuna does not store the state of its random generator: a sampler that is seeded once would
    draw the values of the first trials again when a search continues in another process.

    Args:
        seed: seed of the search.
        start: the recipe's own values by key, those that lie in their ranges.
    """

    def __init__(self, seed: int, *, start: Mapping[str, Any]) -> None:
        self._seed = seed
        self._start = start
        self._place = 0
        self._inner = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:  # noqa: ARG002 - Optuna's signature
        """Seed by the place of the trial."""
        self._place = trial.user_attrs[PLACE]
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


class Search:
    """The trials of one strategy.

    Args:
        storage: the journal.
        strategy: name of the strategy, and of its study.
        identity: hash of the recipe and its rows.
        maximize: whether a higher value is better.
        trials: the budget.
        seed: seed of the search.
        start: what the first trial tries, by key.
        prune: whether bad trials are stopped early.
    """

    def __init__(
        self,
        storage: JournalStorage,
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
        self.maximize = maximize
        self._study: Study = optuna.create_study(
            storage=storage,
            study_name=strategy,
            direction="maximize" if maximize else "minimize",
            sampler=PlaceSampler(seed, start=start),
            pruner=optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._study.set_user_attr(_IDENTITY, identity)

    def counted(self) -> list[FrozenTrial]:
        """List the trials that use the budget, by place: of those that claim a place, the first.

        A trial that ended with its process does not count, so that it is repeated.
        """
        found: dict[int, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            abandoned = trial.state == TrialState.FAIL and FAILURE not in trial.user_attrs
            if PLACE in trial.user_attrs and not abandoned:
                found.setdefault(trial.user_attrs[PLACE], trial)
        return [found[place] for place in sorted(found)]

    def is_running(self) -> bool:
        """Return whether some process, such as another one, runs a trial."""
        return any(trial.state == TrialState.RUNNING for trial in self.counted())

    def begin(self, worker: Worker) -> Trial | None:
        """Begin the next trial of the budget; None where all have begun.

        A place that a dead process left is free. The order of the journal decides between
        processes that claim a place at once.

        Args:
            worker: this process.
        """
        self._release_dead(worker)
        while (place := self._free_place()) is not None:
            attributes = {PLACE: place, WORKER: worker.name}
            self._study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))
            own = next(t for t in self._running() if t.user_attrs[WORKER] == worker.name)
            if any(trial.number == own.number for trial in self.counted()):
                # `Study.ask` begins trials without attributes, or those that another process queued.
                return Trial(self._study, own._trial_id)  # noqa: SLF001 - what Trial takes
            self._study.tell(own.number, state=TrialState.FAIL)
        return None

    def run(self, trial: Trial, objective: Callable[[Trial], float]) -> None:
        """Run a trial that has begun; a failure is recorded and stops nothing.

        An interrupt is not caught; the next search repeats the trial that it ended.
        """
        name = f"[{self.strategy} {trial.user_attrs[PLACE] + 1}/{self.budget}]"
        value, state = None, None
        try:
            value = objective(trial)
            logger.info("%s %.4f", name, value)
        except TrialPruned:
            state = TrialState.PRUNED
            logger.info("%s stopped early: worse than the median at this point", name)
        except Exception as error:  # noqa: BLE001 - whatever a training raises
            state, message = TrialState.FAIL, _reason(error)
            logger.warning("%s failed: %s", name, message)
            with contextlib.suppress(UpdateFinishedTrialError):  # another process took its place
                trial.set_user_attr(FAILURE, message)
        self._study.tell(trial, value, state, skip_if_finished=True)

    def _free_place(self) -> int | None:
        taken = {trial.user_attrs[PLACE] for trial in self.counted()}
        return next((place for place in range(self.budget) if place not in taken), None)

    def _running(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in trials if WORKER in trial.user_attrs]

    def _release_dead(self, worker: Worker) -> None:
        """Free the places of trials whose process does not live."""
        for trial in self._running():
            if not worker.sees(trial.user_attrs[WORKER]):
                # Another process may be faster.
                with contextlib.suppress(ValueError, UpdateFinishedTrialError):
                    self._study.tell(trial.number, state=TrialState.FAIL)


def _reason(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if isinstance(error, PeftuneError) else f"{type(error).__name__}: {line}"
