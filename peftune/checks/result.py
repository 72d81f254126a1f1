"""What a check is, and what it says of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peftune.checks.length_counts import Lengths
from peftune.data.clean import CleaningCount
from peftune.errors import visible
from peftune.recipe.task import TaskName

Status = Literal["pass", "warn", "fail"]

LISTED = 1000
"""Most row numbers of a split that a result lists; the count is always that of all."""

LEAKAGE = ("leakage", "group-leakage", "probe-leakage")
"""Codes whose failure is leakage; every other one is a fault of the data themselves."""

CLASSES: tuple[TaskName, ...] = ("single-label", "multi-label")
LABELLED: tuple[TaskName, ...] = (*CLASSES, "regression")
EVERY_TASK: tuple[TaskName, ...] = (*LABELLED, "language-modeling")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check says.

    Args:
        code: which check; stable, for programs.
        status: `fail` where the numbers would be wrong, `warn` where they may mislead, else `pass`.
        message: what was seen.
        advice: what to do about it; empty where it passes.
        count: rows that it concerns.
        rows: their numbers by split, from 0 for the first row after the header; at most the first
            1,000 of each split.
    """

    code: str
    status: Status
    message: str
    advice: str
    count: int
    rows: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is looked for before training.

    Args:
        code: stable name of its results.
        worst: the gravest status that it gives.
        looks_for: what is wrong where it does not pass.
        rule: from where on it counts as found.
        remedy: what to do then.
        sound: what it says where it passes.
        tasks: kinds of task in which it is made.
    """

    code: str
    worst: Status
    looks_for: str
    rule: str
    remedy: str
    sound: str
    tasks: tuple[TaskName, ...] = EVERY_TASK

    def passed(self) -> CheckResult:
        """Return a result of this check that has found nothing."""
        return CheckResult(self.code, "pass", self.sound, "", 0, {})

    def found(
        self, message: str, rows: Mapping[str, Sequence[int]], *, status: Status | None = None
    ) -> CheckResult:
        """Return a result of this check.

        Args:
            message: what was seen.
            rows: numbers of the rows that it concerns, by split, in order.
            status: where it is milder than the worst.
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


@dataclass(frozen=True, slots=True)
class LeakedScore:
    """The final score with and without the rows whose text was read in training.

    Args:
        split: the split of the final score.
        n: rows scored.
        leaked: rows among them whose text is in train, or in validation where the test is scored.
        metrics: metrics on all rows, by name.
        metrics_without: the same without the leaked rows; empty where none is left.
    """

    split: str
    n: int
    leaked: int
    metrics: Mapping[str, float | None]
    metrics_without: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All checks of a recipe's data.

    Args:
        status: the gravest status of the results.
        rows: rows read, by split.
        results: one a check, in the order of the table.
        lengths: how long the texts are; None where the data cannot be read.
        cleaned: what each step of `data.clean` did.
        leaked_score: the score with and without the leaked rows, where leakage was accepted.
    """

    status: Status
    rows: Mapping[str, int]
    results: Sequence[CheckResult]
    lengths: Lengths | None = None
    cleaned: Sequence[CleaningCount] = ()
    leaked_score: LeakedScore | None = None

    def __getitem__(self, code: str) -> CheckResult:
        """Return the result of a check by its code."""
        for result in self.results:
            if result.code == code:
                return result
        message = f"no check '{code}'; there are: {', '.join(result.code for result in self.results) or 'none'}"
        raise KeyError(message)

    def with_status(self, status: Status) -> list[CheckResult]:
        """List the results with this status."""
        return [result for result in self.results if result.status == status]

    @property
    def exit_code(self) -> int:
        """What the command line exits with: 0, 2 for leakage alone, 3 for any other fault."""
        failed = {result.code for result in self.with_status("fail")}
        if not failed:
            return 0
        return 2 if failed <= set(LEAKAGE) else 3


def worst_of(results: Sequence[CheckResult]) -> Status:
    """Return the gravest status of all."""
    found = {result.status for result in results}
    return "fail" if "fail" in found else "warn" if "warn" in found else "pass"


def report_from_json(values: Mapping[str, Any]) -> CheckReport:
    """Build a report from what JSON holds of it."""
    score = values["leaked_score"]
    lengths = values["lengths"]
    return CheckReport(
        status=values["status"],
        rows=values["rows"],
        results=[CheckResult(**result) for result in values["results"]],
        lengths=None if lengths is None else Lengths(**lengths),
        cleaned=tuple(CleaningCount(**count) for count in values["cleaned"]),
        leaked_score=None if score is None else LeakedScore(**score),
    )
