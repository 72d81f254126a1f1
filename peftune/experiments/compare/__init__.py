"""Compare strategies: the same rows, the same seeds, each run in a process of its own."""

from peftune.experiments.compare.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
