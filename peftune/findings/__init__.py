"""Problems of data, found before training, and of runs and comparisons, each with advice."""

from peftune.findings.check import (
    CHECKS,
    FINDING_TYPES,
    check,
    check_tables,
    find_in_run,
    refuse_failed,
)
from peftune.findings.check_report import CheckReport, LeakedScore
from peftune.findings.finding import CheckResult, Finding, FindingType
from peftune.findings.label_noise import LabelNoise, LabelNoiseReport
from peftune.findings.lengths import Lengths

__all__ = [
    "CHECKS",
    "FINDING_TYPES",
    "CheckReport",
    "CheckResult",
    "Finding",
    "FindingType",
    "LabelNoise",
    "LabelNoiseReport",
    "LeakedScore",
    "Lengths",
    "check",
    "check_tables",
    "find_in_run",
    "refuse_failed",
]
