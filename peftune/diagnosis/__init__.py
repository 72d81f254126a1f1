"""Pitfalls that runs show by themselves, each with advice: one file a pitfall."""

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.diagnosis.learning_rate_edge import learning_rate_at_edge
from peftune.diagnosis.table import PITFALLS, find_pitfalls
from peftune.diagnosis.unstable_seeds import unstable_across_seeds

__all__ = [
    "PITFALLS",
    "Facts",
    "Finding",
    "Pitfall",
    "find_pitfalls",
    "learning_rate_at_edge",
    "unstable_across_seeds",
]
