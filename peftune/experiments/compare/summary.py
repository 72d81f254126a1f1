"""The result of a comparison: strategies over seeds, their differences, and the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peftune.baselines.baseline import Baseline
from peftune.findings.evidence import Collapse
from peftune.stats.intervals import Interval
from peftune.stats.tests import McNemar

HeldEqual = Literal["examples_seen", "steps", "tuned"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of one strategy over its seeds.

    Args:
        mean: over seeds; None where it was not measured.
        ci95: 95% interval for another seed and other rows or documents of the same kind; with one
            seed for other rows or documents alone, with two None.
        values: the figure of each seed, in the order of the seeds.
        reason: why `mean` or `ci95` is None.
    """

    mean: float | None
    ci95: Interval | None
    values: Sequence[float | None]
    reason: str | None = None


def each_of_two(estimate: Estimate) -> tuple[float, ...]:
    """Return the two values of a figure that only two seeds have; otherwise none.

    Their mean alone would hide how far they differ, and no interval can say it.
    """
    known = tuple(value for value in estimate.values if value is not None)
    return known if len(known) == 2 and estimate.ci95 is None else ()  # noqa: PLR2004 - two


@dataclass(frozen=True, slots=True)
class Standing:
    """One strategy over its seeds.

    Args:
        strategy: name of the strategy.
        seeds: seeds of its finished runs.
        learned: whether its seeds, taken together, say more than can be said without reading (the score
            that the checkpoints are chosen by, one-sided p-value of at most 0.025).
        figures: by key: `accuracy`, `macro_f1`, `forgetting.<probe>`, `train_seconds`,
            `peak_memory_bytes`, `artifact_bytes`, `trainable_parameters`.
        examples_seen: rows read in training, with repetition.
        steps: optimizer steps.
        ties: letters by key, for `accuracy` and each `forgetting.<probe>`: strategies that share a
            letter are not significantly different. None with fewer than three seeds.
        collapsed: the seeds that give nearly every row one label, while others do not. The figures
            include them.
    """

    strategy: str
    seeds: Sequence[int]
    learned: bool
    figures: Mapping[str, Estimate]
    examples_seen: int | None
    steps: int | None
    ties: Mapping[str, str]
    collapsed: Sequence[Collapse] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Two strategies on the same rows or documents: the first minus the second.

    Args:
        key: which figure: `accuracy` or `forgetting.<probe>`.
        first: a strategy.
        second: another.
        mean: over seeds and rows.
        ci95: 95% interval of it, paired.
        p_value: two-sided; None where both finished fewer than three seeds.
        p_adjusted: the same by Holm over all pairs of this figure.
        mcnemar: exact test of each seed's rows, for `accuracy`; by seed.
        significant: whether `p_adjusted` is below 0.05.
        ranked: whether the comparison is a fair one; an unequal pair is shown and not ranked.
        reason: why it is not ranked, or why figures are None.
        detectable: the true difference that these seeds and rows would have shown with a chance of
            80%, at the level that Holm's correction leaves for this pair: 0.05 by the number of
            pairs less those that are significant. None where the pair is significant, not ranked or not
            tested.
        seeds_needed: how many seeds would show a difference as large as `mean`, with the same
            chance at the same level. None where `detectable` is, and where no number of seeds
            shows it; the reason says so.
    """

    key: str
    first: str
    second: str
    mean: float
    ci95: Interval | None
    p_value: float | None
    p_adjusted: float | None
    mcnemar: Mapping[int, McNemar]
    significant: bool
    ranked: bool
    reason: str | None = None
    detectable: float | None = None
    seeds_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Matched:
    """Forgetting of one probe at equal accuracy, along each strategy's path.

    Args:
        probe: name of the probe.
        accuracy: the accuracy at which all are read.
        forgetting: by strategy; `mean` is None and `reason` says "not reached" where a path ends
            below the accuracy.
        differences: of the pairs that reach it.
    """

    probe: str
    accuracy: float
    forgetting: Mapping[str, Estimate]
    differences: Sequence[Difference]


@dataclass(frozen=True, slots=True)
class Front:
    """Strategies that no other beats in accuracy and in `key` at once."""

    key: str
    strategies: Sequence[str]


@dataclass(frozen=True, slots=True)
class AgainstBaseline:
    """A strategy on the rows that the best baseline answered: the strategy minus the baseline.

    Args:
        strategy: name of the strategy.
        baseline: name of the baseline.
        n: rows that both answered; None where the answers of the baseline are not known.
        mean: difference of the accuracies, or of macro F1.
        ci95: 95% interval of it, paired; over rows and seeds with three seeds, else over rows, of
            the mean of these models; None of macro F1, which has a test alone.
        beats: whether the strategy is clearly the better.
        reason: why `ci95` is None, or what it does not speak of.
        metric: `accuracy`; or `macro_f1` where checkpoints are not chosen by accuracy, the strategy
            is not clearly the more accurate, and it is clearly above every baseline in one of the two.
    """

    strategy: str
    baseline: str
    n: int | None
    mean: float
    ci95: Interval | None
    beats: bool
    reason: str | None = None
    metric: Literal["accuracy", "macro_f1"] = "accuracy"


@dataclass(frozen=True, slots=True)
class LeakedRows:
    """Rows of the final score whose text was read in training.

    Args:
        split: the split of the final score.
        n: its rows.
        leaked: those whose text is in train, or in validation where the test is scored.
        left_out: whether no figure of the comparison counts them; False where the run folders,
            written by an earlier version, do not say which rows they are.
        matched: whether forgetting is read at equal accuracy: the points of an earlier version's
            paths count the rows.
    """

    split: str
    n: int
    leaked: int
    left_out: bool = True
    matched: bool = True

    def __str__(self) -> str:
        """Say it in one sentence."""
        if not self.left_out:
            return f"{self.leaked} of {self.n} {self.split} rows were read in training and are counted here, for these run folders do not say which they are."
        if self.leaked == self.n:
            return f"All {self.n} {self.split} rows were read in training, so they say nothing of other rows: there is no accuracy to compare, and none is named. Score rows that were not read in training."
        also = (
            ""
            if self.matched
            else "; forgetting at equal accuracy is not read, for the points of the paths count them"
        )
        return f"{self.leaked} of {self.n} {self.split} rows were read in training and are left out here{also}."


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a comparison, for tables, pages and programs.

    Args:
        answer: which strategy to use, in one sentence.
        held_equal: what the strategies share besides rows and seeds.
        standings: the strategies, most accurate first.
        differences: all pairs of every figure that is compared.
        matched: forgetting at equal accuracy, one entry a probe.
        fronts: the Pareto front of accuracy against each of the other figures.
        baselines: the baselines, lowest first.
        against_baseline: each strategy against the best of them, on the same rows.
        leaked: rows that were read in training, which no figure counts; None where none was.
    """

    answer: str
    held_equal: HeldEqual
    standings: Sequence[Standing]
    differences: Sequence[Difference]
    matched: Sequence[Matched]
    fronts: Sequence[Front]
    baselines: Sequence[Baseline]
    against_baseline: Sequence[AgainstBaseline] = ()
    leaked: LeakedRows | None = None

    def as_json(self) -> dict[str, Any]:
        """Return every field under the keys of `comparison.json`."""
        values = dataclasses.asdict(self)
        del values["baselines"]
        matched = [pair for one in values["matched"] for pair in one["differences"]]
        for pair in (*values["differences"], *matched):
            pair["told_apart"] = pair.pop("significant")
        return values | {"ladder": [one.as_entry() for one in self.baselines]}
