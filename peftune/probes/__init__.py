"""Probes: general abilities measured before and after. Light: importing them loads no torch."""

from peftune.probes.base import (
    BaseScores,
    ContinuationScores,
    LanguageModel,
    Measurement,
    Probe,
    TextScores,
)
from peftune.probes.kl import KLDivergence
from peftune.probes.lm_loss import LanguageModelLoss
from peftune.probes.registry import PROBES

__all__ = [
    "PROBES",
    "BaseScores",
    "ContinuationScores",
    "KLDivergence",
    "LanguageModel",
    "LanguageModelLoss",
    "Measurement",
    "Probe",
    "TextScores",
]
