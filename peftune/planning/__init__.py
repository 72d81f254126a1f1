"""What a training would need of memory, time and disk, worked out before a base is loaded."""

from peftune.planning.plan import plan
from peftune.planning.plan_results import Plan, StrategyPlan

__all__ = ["Plan", "StrategyPlan", "plan"]
