"""Probes: general abilities measured before and after. Light: importing them loads no torch."""

from peftune.probes.base import LanguageModel, Measurement, Probe
from peftune.probes.lm_loss import LanguageModelLoss
from peftune.probes.registry import PROBES

__all__ = ["PROBES", "LanguageModel", "LanguageModelLoss", "Measurement", "Probe"]
