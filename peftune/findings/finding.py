"""Types of findings, what a check of the data or of a run found, and the report of all checks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from peftune.data.cleaning import CleaningCount
from peftune.display import Block, Displayed, data_frame
from peftune.errors import visible
from peftune.recipe.task_type import TaskName

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the texts are.

    Args:
        max_length: tokens kept of each text.
        edges: bounds of the bars in tokens, one more than there are bars; the last bar also counts
            what is longer than its end.
        counts: texts by bar, by split.
        median: half of the texts are at most so long, by split; tokens.
        longest: tokens of the longest text, by split.
        truncated: texts longer than `max_length`, by split.
    """

    max_length: int
    edges: Sequence[int]
    counts: Mapping[str, Sequence[int]]
    median: Mapping[str, float]
    longest: Mapping[str, int]
    truncated: Mapping[str, int]


LEAKAGE = ("leakage", "group-leakage", "probe-leakage")
"""Codes whose failure is leakage; every other one is a fault of the data themselves."""


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


@dataclass(frozen=True, slots=True, repr=False)
class CheckReport(Displayed):
    """All checks of a recipe's data.

    Its `repr` is what did not pass, and how many checks did.

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

    def _blocks(self) -> Iterator[Block]:
        for result in (*self.with_status("fail"), *self.with_status("warn")):
            yield f"{result.status.upper()} {result.code}: {result.message} {result.advice}".rstrip()
        counts = Counter(result.status for result in self.results)
        yield f"{counts['pass']} pass, {counts['warn']} warn, {counts['fail']} fail"

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return dataclasses.asdict(self)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a check."""
        return data_frame(dataclasses.asdict(result) for result in self.results)

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
