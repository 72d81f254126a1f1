"""Strategies: how the base is loaded and which weights are trained. Light: importing them loads no torch."""

from peftune.strategies.base import (
    STRATEGIES,
    Strategy,
    StrategyChoice,
    TrainingDefaults,
    chosen_strategy,
)
from peftune.strategies.full import Full
from peftune.strategies.head_only import HeadOnly
from peftune.strategies.lora import LoRA
from peftune.strategies.lora_8bit import LoRA8bit

__all__ = [
    "STRATEGIES",
    "Full",
    "HeadOnly",
    "LoRA",
    "LoRA8bit",
    "Strategy",
    "StrategyChoice",
    "TrainingDefaults",
    "chosen_strategy",
]
