"""Hyper-parameters searched with equal effort for every strategy, by the validation rows alone."""

from peftune.tuning.results import Edge, TrialRecord, TunedStrategy, Tuning
from peftune.tuning.tune import tune

__all__ = ["Edge", "TrialRecord", "TunedStrategy", "Tuning", "tune"]
