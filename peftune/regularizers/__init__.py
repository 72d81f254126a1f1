"""Regularizers: terms added to the task's loss that hold forgetting down. Light: no torch."""

from peftune.regularizers.base import REGULARIZERS, Penalty, Regularizer, TrainedModel
from peftune.regularizers.ewc import EWC
from peftune.regularizers.kl_to_base import KLToBase
from peftune.regularizers.l2_sp import L2SP
from peftune.regularizers.replay import Replay

__all__ = [
    "EWC",
    "L2SP",
    "REGULARIZERS",
    "KLToBase",
    "Penalty",
    "Regularizer",
    "Replay",
    "TrainedModel",
]
