"""Probes: general abilities measured before and after. Light: importing them loads no torch."""

from peftune.probes.base import (
    PROBES,
    BaseScores,
    ContinuationScores,
    LanguageModel,
    Measurement,
    Probe,
    TextScores,
)
from peftune.probes.cloze import Cloze
from peftune.probes.kl import KLDivergence
from peftune.probes.linear_probe import LinearProbe
from peftune.probes.lm_loss import LanguageModelLoss
from peftune.probes.minimal_pairs import MinimalPairs
from peftune.probes.multiple_choice import MultipleChoice

__all__ = [
    "PROBES",
    "BaseScores",
    "Cloze",
    "ContinuationScores",
    "KLDivergence",
    "LanguageModel",
    "LanguageModelLoss",
    "LinearProbe",
    "Measurement",
    "MinimalPairs",
    "MultipleChoice",
    "Probe",
    "TextScores",
]
