"""What is wrong with the data, found before training: one file for what belongs together."""

from peftune.findings.check import CHECKS, check, check_tables, refuse_failed
from peftune.findings.finding import Check, CheckReport, CheckResult

__all__ = [
    "CHECKS",
    "Check",
    "CheckReport",
    "CheckResult",
    "check",
    "check_tables",
    "refuse_failed",
]
