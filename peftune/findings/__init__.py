"""Problems of data, found before training, and of runs and comparisons, each with advice."""

from peftune.findings.check import (
    CHECKS,
    FINDING_TYPES,
    check,
    check_tables,
    find_in_run,
    refuse_failed,
)
from peftune.findings.finding import (
    CheckReport,
    CheckResult,
    Finding,
    FindingType,
    LeakedScore,
    Lengths,
)
from peftune.findings.label_noise import LabelNoise, LabelNoiseReport

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
