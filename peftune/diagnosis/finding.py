"""What a diagnosis says, and the facts of a run that it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from peftune.forgetting.results import ProbeResult
from peftune.recipe import Recipe
from peftune.tasks.learning import Learning
from peftune.training.train import TrainingResult

Severity = Literal["note", "warning", "error"]
Scope = Literal["run", "tuning", "comparison"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A pitfall that was seen, with what to do about it.

    Args:
        code: which pitfall; stable, for programs.
        severity: `error` where numbers are not to be used, `warning` where they mislead.
        message: what was seen, with the numbers.
        advice: what to do about it.
    """

    code: str
    severity: Severity
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class Pitfall:
    """A pitfall that is looked for.

    Args:
        code: stable name of its findings.
        scope: what it is looked for in: a run, the winner of a search, or runs of several seeds.
        looks_for: what is wrong where it is found.
        threshold: from where on it counts as found, and why from there.
    """

    code: str
    scope: Scope
    looks_for: str
    threshold: str

    def found(self, severity: Severity, message: str, advice: str) -> Finding:
        """Return a finding with this code."""
        return Finding(self.code, severity, message, advice)


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
    """

    recipe: Recipe
    learning: Learning
    probes: Sequence[ProbeResult]
    control: float | None
    training: TrainingResult
    train_labels: Mapping[str, int]
    validation_rows: int

    @property
    def train_rows(self) -> int:
        """Count the training rows of a single-label task."""
        return sum(self.train_labels.values())

    def losses(self, name: Literal["train_loss", "validation_loss"]) -> list[tuple[int, float]]:
        """Return a loss of the curve by step.

        `validation_loss` is the mean over all validation rows, without dropout. `train_loss` is no
        such thing: the mean over the batches since the point before, while the weights changed,
        with dropout and with what regularisers add. It can be compared with itself at another
        step, not with the validation loss.
        """
        return [
            (int(point["step"]), float(point[name]))
            for point in self.training.curve
            if name in point
        ]
