"""What a diagnosis says, and the facts of a run that it looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from peftune.artifacts.rounding import Rounding
from peftune.errors import visible
from peftune.forgetting.results import ProbeResult
from peftune.recipe import Recipe
from peftune.tasks.learning import Learning
from peftune.training.train import TrainingResult

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
    """What a training lost on rows at one of its evaluations, without dropout and regularisers.

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
