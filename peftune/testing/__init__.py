"""The conformance kit: the laws that every strategy keeps, for authors of plug-ins to run.

The only package of peftune that imports pytest, which is no dependency of peftune.
"""

from peftune.testing.contract import StrategyContract
from peftune.testing.tuned import write_tiny_base

__all__ = ["StrategyContract", "write_tiny_base"]
