"""What a diagnosis says, and the facts of a run that it looks at."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from peftune.adapters.rounding import Rounding
from peftune.data.cleaning import CleaningCount
from peftune.display import Block, Displayed, data_frame
from peftune.errors import visible
from peftune.forgetting.results import ProbeResult
from peftune.models.tokenizer import encode_texts
from peftune.recipe import Recipe
from peftune.recipe.task_type import TaskName
from peftune.tasks.scores import Learning
from peftune.training.train import TrainingResult

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["note", "warning", "error"]
Scope = Literal["run", "tuning", "comparison", "evaluation"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A pitfall that was seen, with what to do about it.

    Args:
        code: which pitfall; stable, for programs.
        severity: `error` where numbers are not to be used, `warning` where they mislead.
        message: what was seen, with the numbers.
        advice: what to do about it.
        step: the training step from which on it is seen; None for what has no beginning.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Pitfall:
    """A pitfall that is looked for.

    Args:
        code: stable name of its findings.
        scope: what it is looked for in: a run, the winner of a search, a comparison, or rows that an
            artifact is scored on.
        looks_for: what is wrong where it is found.
        threshold: from where on it counts as found, and why from there.
    """

    code: str
    scope: Scope
    looks_for: str
    threshold: str

    def found(
        self, severity: Severity, message: str, advice: str, *, step: int | None = None
    ) -> Finding:
        """Return a finding with this code."""
        return Finding(self.code, severity, visible(message), visible(advice), step)


class Evaluation(NamedTuple):
    """What a training lost on rows at one of its evaluations, without dropout and regularizers.

    Args:
        step: after how many steps.
        training: mean loss of a sample of the training rows, nats; the same rows at every step.
        validation: mean loss of the validation rows, nats.
    """

    step: int
    training: float
    validation: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a finished run knows of itself.

    Args:
        recipe: the resolved recipe.
        learning: the score on held-out rows.
        probes: what each probe found.
        control: forgetting with the adapter off; None where there was none to switch off.
        training: how training went, with its curve.
        train_labels: training rows by label, in the order of the labels; 0 where there are none.
        validation_rows: rows of each evaluation in training.
        rounding: what came of rounding the weights for storage; None where it was not asked for.
    """

    recipe: Recipe
    learning: Learning
    probes: Sequence[ProbeResult]
    control: float | None
    training: TrainingResult
    train_labels: Mapping[str, int]
    validation_rows: int
    rounding: Rounding | None = None

    @property
    def train_rows(self) -> int:
        """Count the training rows of a single-label task."""
        return sum(self.train_labels.values())

    @property
    def evaluations(self) -> list[Evaluation]:
        """Return the losses of training and validation rows, which are on one scale, by step."""
        return [
            Evaluation(
                int(point["step"]),
                float(point["train_sample_loss"]),
                float(point["validation_loss"]),
            )
            for point in self.training.curve
            if "train_sample_loss" in point and "validation_loss" in point
        ]


_CHUNK = 1000
_BARS = 24


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


def token_counts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """Count the tokens of each text, (texts,), int32."""
    counts = np.empty(len(texts), dtype=np.int32)
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        encoded = encode_texts(tokenizer, chunk, max_length=None)
        counts[start : start + len(chunk)] = [len(ids) for ids in encoded]
    return counts


def lengths_of(tokens: Mapping[str, NDArray[np.int32]], max_length: int) -> Lengths | None:
    """Summarize token counts; None where there are no texts.

    Args:
        tokens: of each text, by split.
        max_length: tokens kept of each text.
    """
    tokens = {split: counts for split, counts in tokens.items() if len(counts)}
    if not tokens:
        return None
    together = np.concatenate(list(tokens.values()))
    top = max(float(np.percentile(together, 99.9)), max_length, _BARS)
    width = int(np.ceil(top / _BARS))
    edges = np.arange(_BARS + 1) * width
    return Lengths(
        max_length=max_length,
        edges=edges.tolist(),
        counts={
            split: np.histogram(np.minimum(counts, edges[-1]), edges)[0].tolist()
            for split, counts in tokens.items()
        },
        median={split: float(np.median(counts)) for split, counts in tokens.items()},
        longest={split: int(counts.max()) for split, counts in tokens.items()},
        truncated={split: int((counts > max_length).sum()) for split, counts in tokens.items()},
    )


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
