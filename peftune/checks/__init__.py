"""What is wrong with the data, found before training: one file for what belongs together."""

from peftune.checks.check import check, check_tables, refuse_failed
from peftune.checks.result import Check, CheckReport, CheckResult
from peftune.checks.table import CHECKS

__all__ = [
    "CHECKS",
    "Check",
    "CheckReport",
    "CheckResult",
    "check",
    "check_tables",
    "refuse_failed",
]
