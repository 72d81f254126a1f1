"""The report of all checks of a recipe's data."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftune.data.cleaning import CleaningCount
from peftune.display import Block, Displayed, data_frame
from peftune.findings.finding import CheckResult, Status
from peftune.findings.lengths import Lengths

if TYPE_CHECKING:
    import pandas as pd

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
