"""The sampler: what a trial tries depends on its place in the budget, not on which process runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from peftune.seeds import stream_seed

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
