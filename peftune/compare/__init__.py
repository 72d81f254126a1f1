"""Compare strategies: the same rows, the same seeds, each run in a process of its own."""

from peftune.compare.grid import Comparison, compare

__all__ = ["Comparison", "compare"]
