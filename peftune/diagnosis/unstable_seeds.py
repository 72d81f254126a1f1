"""The seed decides more than the strategy: seeds that do not agree, and seeds that collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from peftune.diagnosis.finding import Finding, Pitfall

_CHANCE = 0.01
_MATTERS = 0.01
_CONSTANT = 0.02

PITFALL = Pitfall(
    code="unstable-across-seeds",
    scope="comparison",
    looks_for="Runs that differ in nothing but the seed do not agree.",
    threshold=f"The standard deviation of the accuracy over seeds is at least {_MATTERS:g}, and larger than rows drawn anew for each seed would make it in {1 - _CHANCE:.0%} of cases. Seeds that read their rows err on the same ones, so the noise between them is smaller than that.",
)

COLLAPSED = Pitfall(
    code="collapsed-seed",
    scope="comparison",
    looks_for="A seed gives nearly every row the same label, while other seeds of its strategy read the rows: a mean over them is the figure of neither.",
    threshold=f"The rows that the seed gives another label than its most frequent one number at most {_CONSTANT:.0%} of those that have another (1% of all rows where two labels are equally frequent), other seeds give more, and these are more accurate than it on the same rows: a paired one-sided t-test over rows, at {_CHANCE:.0%} for all such seeds together (Bonferroni). A strategy of which every seed is constant has learned nothing and is not found here.",
)


@dataclass(frozen=True, slots=True)
class Collapse:
    """A seed that says nearly the same of every row, while other seeds of its strategy do not.

    Args:
        seed: which one.
        label: name of the label that it gives.
        share: of rows that it gives it to.
        accuracy: of this seed.
        others: accuracies of the seeds that read the rows.
    """

    seed: int
    label: str
    share: float
    accuracy: float
    others: Sequence[float]

    @property
    def rows(self) -> str:
        """Say of how many rows: `every row`, or `99.6% of the rows`."""
        return "every row" if self.share == 1 else f"{self.share:.1%} of the rows"


def collapsed_seeds(
    predicted: Mapping[int, NDArray[np.int64]], labels: NDArray[np.int64], names: Sequence[str]
) -> list[Collapse]:
    """List the seeds of one strategy that collapsed to one label.

    Args:
        predicted: label ids of the same rows, (rows,), by seed.
        labels: the true ones, (rows,).
        names: label names in the order of their ids.

    References:
        Dodge et al. 2020, Fine-Tuning Pretrained Language Models: Weight Initializations, Data
        Orders, and Early Stopping, arXiv:2002.06305: that single seeds diverge.
    """
    right = {seed: said == labels for seed, said in predicted.items()}
    constant = {
        seed: label
        for seed, said in predicted.items()
        if (label := _only_label(said, labels)) is not None
    }
    reading = [right[seed] for seed in predicted if seed not in constant]
    if not reading:
        return []
    found = []
    for seed, label in constant.items():
        ahead = np.mean(reading, axis=0) - right[seed]  # (rows,)
        if np.ptp(ahead) == 0:
            continue
        chance = float(stats.ttest_1samp(ahead, 0.0, alternative="greater").pvalue)
        if chance * len(constant) <= _CHANCE:
            share = float((predicted[seed] == label).mean())
            others = [float(one.mean()) for one in reading]
            found.append(Collapse(seed, names[label], share, float(right[seed].mean()), others))
    return found


def _only_label(said: NDArray[np.int64], labels: NDArray[np.int64]) -> int | None:
    """Return the label that nearly every row was given; None where there are several."""
    if len(said) == 0:
        return None
    label = int(np.bincount(said).argmax())
    others = int((said != label).sum())
    return label if others <= _CONSTANT * int((labels != label).sum()) else None


def find_collapsed_seeds(
    strategy: str, seeds: int, collapsed: Sequence[Collapse]
) -> Finding | None:
    """Say which seeds of a strategy collapsed, and to what.

    Args:
        strategy: its name.
        seeds: how many it was run with.
        collapsed: those that `collapsed_seeds` found.
    """
    if not collapsed:
        return None
    each = "; ".join(
        f"seed {one.seed} gives {one.rows} the label '{one.label}' (accuracy {one.accuracy:.3f})"
        for one in collapsed
    )
    low, high = min(collapsed[0].others), max(collapsed[0].others)
    others = f"the others reach {low:.3f} to {high:.3f}"
    if len(collapsed[0].others) == 1:
        others = f"the other reaches {low:.3f}"
    return COLLAPSED.found(
        "warning",
        f"{len(collapsed)} of {seeds} seeds of {strategy} collapsed: {each}; {others}.",
        "No mean or interval speaks of both kinds of runs: report how many seeds collapse, beside the figures of the others. training.warmup_steps and a lower training.learning_rate make it rarer; more seeds tell how often it happens.",
    )


def unstable_across_seeds(accuracies: Sequence[float], n: int) -> Finding | None:
    """Look whether the accuracy differs between seeds by more than the noise of the test rows.

    k models that are equally good, each scored on n rows of its own, have accuracies of variance
    p (1 - p) / n, and the sum of their squared distances from the mean over that variance is
    chi-square distributed with k - 1 degrees of freedom (the test of homogeneity).

    Args:
        accuracies: of one strategy, one a seed.
        n: test rows.

    References:
        Mosbach et al. 2021, On the Stability of Fine-tuning BERT, arXiv:2006.04884.
    """
    if len(accuracies) < 2:  # noqa: PLR2004 - one run has no spread
        return None
    values = np.asarray(accuracies, dtype=np.float64)
    deviation = float(values.std(ddof=1))
    noise = float(values.mean() * (1 - values.mean()) / n)
    if deviation < _MATTERS or noise == 0:
        return None
    statistic = float(((values - values.mean()) ** 2).sum() / noise)
    if stats.chi2.sf(statistic, len(values) - 1) > _CHANCE:
        return None
    return PITFALL.found(
        "warning",
        f"The accuracy of {len(values)} seeds runs from {values.min():.3f} to {values.max():.3f} (standard deviation {deviation:.3f}); the noise of {n} rows explains {noise**0.5:.3f} at most.",
        "Report all seeds and take more of them; a lower training.learning_rate, training.warmup_steps or more epochs make runs agree.",
    )
