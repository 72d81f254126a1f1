"""The conformance kit: the laws that every plug-in keeps, for authors to run.

The only package of peftune that imports pytest, which is not a dependency of peftune.
"""

from peftune.testing.contract import StrategyContract
from peftune.testing.plugin_contracts import ProbeContract, RegularizerContract
from peftune.testing.tuned import write_tiny_base

__all__ = ["ProbeContract", "RegularizerContract", "StrategyContract", "write_tiny_base"]
