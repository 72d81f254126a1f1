"""Kinds of problems that are looked for in data and in runs, and what is found of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from peftune.errors import visible
from peftune.recipe.task_type import TaskName

Severity = Literal["note", "warning", "error"]
Status = Literal["pass", "warn", "fail"]
Scope = Literal["data", "run", "tuning", "comparison", "evaluation"]

LISTED = 1000
"""Most row numbers of a split that a result lists; the count is always that of all rows."""

CLASSES: tuple[TaskName, ...] = ("single-label", "multi-label")
LABELED: tuple[TaskName, ...] = (*CLASSES, "regression")
EVERY_TASK: tuple[TaskName, ...] = (*LABELED, "language-modeling")


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a run, a search, a comparison or a set of scored rows, with advice.

    Args:
        code: code of its type; stable, for programs.
        severity: `error` if figures must not be used, `warning` if they mislead, else `note`.
        message: what was found, with the numbers.
        advice: what to do about it.
        step: the training step at which it begins; None if it does not belong to a step.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    step: int | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check of the data, which may be that nothing was found.

    Args:
        code: code of the check; stable, for programs.
        status: `fail` if figures would be wrong, `warn` if they may mislead, else `pass`.
        message: what was found.
        advice: what to do about it; empty if the check passes.
        count: number of rows concerned.
        rows: their row numbers by split, from 0 for the first row after the header; at most the
            first 1,000 of each split.
    """

    code: str
    status: Status
    message: str
    advice: str
    count: int
    rows: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingType:
    """A kind of problem: what is looked for, in what, and from which threshold.

    Args:
        code: stable name of its findings.
        scope: where it is looked for: in the data before training, a run, the winner of a search,
            a comparison, or rows that an artifact is scored on.
        looks_for: what is wrong.
        threshold: when it counts as found, and why.
        worst: the gravest status of a data check.
        remedy: advice of a data check; findings of other scopes bring their own.
        sound: message of a data check that passes.
        tasks: task types whose data are checked for it.
    """

    code: str
    scope: Scope
    looks_for: str
    threshold: str
    worst: Status = "warn"
    remedy: str = ""
    sound: str = ""
    tasks: tuple[TaskName, ...] = EVERY_TASK

    def found(
        self, severity: Severity, message: str, advice: str, *, step: int | None = None
    ) -> Finding:
        """Return a finding of this type."""
        return Finding(self.code, severity, visible(message), visible(advice), step)

    def in_rows(
        self, message: str, rows: Mapping[str, Sequence[int]], *, status: Status | None = None
    ) -> CheckResult:
        """Return the result of a data check that found something.

        Args:
            message: what was found.
            rows: sorted row numbers by split.
            status: a status milder than the worst.
        """
        named = {split: found for split, found in rows.items() if len(found)}
        return CheckResult(
            self.code,
            status or self.worst,
            visible(message),
            self.remedy,
            sum(map(len, named.values())),
            {split: list(found[:LISTED]) for split, found in named.items()},
        )

    def passed(self) -> CheckResult:
        """Return the result of a data check that found nothing."""
        return CheckResult(self.code, "pass", self.sound, "", 0, {})
