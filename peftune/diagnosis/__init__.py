"""Pitfalls that runs show by themselves, each with advice: one file a pitfall."""

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.diagnosis.learning_rate_edge import learning_rate_at_edge
from peftune.diagnosis.learning_rates import shared_learning_rate
from peftune.diagnosis.linear_probe_gap import below_linear_probe
from peftune.diagnosis.table import PITFALLS, find_pitfalls
from peftune.diagnosis.training_rows import seen_rows
from peftune.diagnosis.unstable_seeds import (
    Collapse,
    collapsed_seeds,
    find_collapsed_seeds,
    unstable_across_seeds,
)
from peftune.diagnosis.warmup import warmup_ahead

__all__ = [
    "PITFALLS",
    "Collapse",
    "Facts",
    "Finding",
    "Pitfall",
    "below_linear_probe",
    "collapsed_seeds",
    "find_collapsed_seeds",
    "find_pitfalls",
    "learning_rate_at_edge",
    "seen_rows",
    "shared_learning_rate",
    "unstable_across_seeds",
    "warmup_ahead",
]
