"""Search hyper-parameters with equal effort for every strategy, on the validation rows alone."""

from peftune.experiments.tune.search import tune
from peftune.experiments.tune.tuning_results import Edge, TrialRecord, TunedStrategy, Tuning

__all__ = ["Edge", "TrialRecord", "TunedStrategy", "Tuning", "tune"]
