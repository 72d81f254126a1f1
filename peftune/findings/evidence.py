"""Findings about the evidence: few test rows, unstable seeds, rows trained on, an ability lost early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from peftune.data.text_hashes import RowSketch
from peftune.findings.facts import RunFacts
from peftune.findings.finding import Finding, FindingType
from peftune.forgetting.callback import KEY
from peftune.stats.scores import ONE_SIDED, better_p_value

_TWO_SIDED_5_PERCENT = 1.96
_POWER_80_PERCENT = 0.84

SMALL_TEST_SET = FindingType(
    code="small-test-set",
    scope="run",
    looks_for="So few rows were scored that a gain over the best baseline of this size may be chance.",
    threshold=f"The gain in accuracy is above zero, and the exact McNemar test of the rows that only one of the two has right does not reject chance (one-sided, {ONE_SIDED:.1%}). The number of rows given is that which shows such a gain, with as large a share of such rows, in 80 of 100 cases.",
)


def find_small_test_set(facts: RunFacts) -> Finding | None:
    """Check whether the rows are too few for the gain over the best baseline."""
    learning = facts.learning
    if not learning.task_type.one_label or learning.accuracy is None:
        return None
    scores = {name: values["accuracy"] for name, values in learning.baselines.items()}
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None or "wrong_alone" not in learning.baselines[best]:
        return None
    gained, lost = (int(learning.baselines[best][k]) for k in ("wrong_alone", "right_alone"))
    if gained <= lost or better_p_value(gained, lost) <= ONE_SIDED:
        return None
    gain = (gained - lost) / learning.n
    needed = rows_needed((gained + lost) / learning.n, gain=gain)
    return SMALL_TEST_SET.found(
        "warning",
        f"A gain of {gain:.3f} over the {scores[best]:.3f} of the baseline '{best}' may be chance with {learning.n} {learning.split} rows: {gained} are right that it has wrong, {lost} wrong that it has right.",
        f"Telling a gain of this size takes about {needed} rows; it may also be none.",
    )


def rows_needed(discordant: float, *, gain: float) -> int:
    """Say how many rows show a gain in accuracy in 80 of 100 cases, two-sided at 5%.

    Both answered the same rows, so what varies is which rows one alone has right. The exact test
    asks for about one discordant row more than Connor's normal approximation: for 1 / gain rows.

    Args:
        discordant: share of the rows that one of the two alone has right.
        gain: accuracy above the baseline, greater than 0.

    References:
        Connor 1987, Sample size for testing differences in proportions for the paired-sample
        design, Biometrics 43.
    """
    spread = _TWO_SIDED_5_PERCENT * math.sqrt(discordant)
    power = _POWER_80_PERCENT * math.sqrt(discordant - gain**2)
    return math.ceil(((spread + power) / gain) ** 2 + 1 / gain)


_CHANCE = 0.01
_MATTERS = 0.01
_CONSTANT = 0.02

UNSTABLE_SEEDS = FindingType(
    code="unstable-across-seeds",
    scope="comparison",
    looks_for="Runs that differ in nothing but the seed do not agree.",
    threshold=f"The standard deviation of the accuracy over seeds is at least {_MATTERS:g}, and larger than rows drawn anew for each seed would make it in {1 - _CHANCE:.0%} of cases. Seeds that read their rows err on the same ones, so the noise between them is smaller than that.",
)

COLLAPSED_SEEDS = FindingType(
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
    right = {seed: assigned == labels for seed, assigned in predicted.items()}
    constant = {
        seed: label
        for seed, assigned in predicted.items()
        if (label := _only_label(assigned, labels)) is not None
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


def _only_label(assigned: NDArray[np.int64], labels: NDArray[np.int64]) -> int | None:
    """Return the label that nearly every row was given; None where there are several."""
    if len(assigned) == 0:
        return None
    label = int(np.bincount(assigned).argmax())
    others = int((assigned != label).sum())
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
    return COLLAPSED_SEEDS.found(
        "warning",
        f"{len(collapsed)} of {seeds} seeds of {strategy} collapsed: {each}; {others}.",
        "No mean or interval speaks of both kinds of runs: report how many seeds collapse, beside the figures of the others. training.warmup_steps and a lower training.learning_rate make it rarer; more seeds tell how often it happens.",
    )


def unstable_across_seeds(accuracies: Sequence[float], n: int) -> Finding | None:
    """Check whether the accuracy differs between seeds by more than the noise of the test rows.

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
    return UNSTABLE_SEEDS.found(
        "warning",
        f"The accuracy of {len(values)} seeds runs from {values.min():.3f} to {values.max():.3f} (standard deviation {deviation:.3f}); the noise of {n} rows explains {noise**0.5:.3f} at most.",
        "Report all seeds and take more of them; a lower training.learning_rate, training.warmup_steps or more epochs make runs agree.",
    )


SCORED_ON_VALIDATION = FindingType(
    code="scored-on-validation",
    scope="run",
    looks_for="The score is too high, for its rows chose the checkpoint.",
    threshold="There are no test rows.",
)


def find_score_on_validation(facts: RunFacts) -> Finding | None:
    """Check whether there were rows of their own for the final score."""
    if facts.learning.split != "validation":
        return None
    return SCORED_ON_VALIDATION.found(
        "warning",
        "There are no test rows, so the final score is of the rows that chose the best checkpoint, and is too high.",
        "Set data.test_file or data.test_split.",
    )


KEPT_FLOAT32 = FindingType(
    code="kept-float32",
    scope="run",
    looks_for="The artifact is twice as large as `save.dtype` asks for.",
    threshold="Rounding the learned weights to bfloat16 changes the predicted label of a validation row.",
)


def find_kept_float32(facts: RunFacts) -> Finding | None:
    """Check whether rounding was given up."""
    if facts.rounding is None or not facts.rounding.flips:
        return None
    found = facts.rounding
    return KEPT_FLOAT32.found(
        "note",
        f"In bfloat16 the labels of {found.flips} of {found.texts} validation rows would change, so the artifact is stored in float32.",
        "Nothing is lost but bytes; set save.dtype: float32 to ask for no more.",
    )


_SHARE = 0.1
_FEWEST = 3

SEEN_ROWS = FindingType(
    code="seen-rows",
    scope="evaluation",
    looks_for="`peftune evaluate`, `predict --file` or `forget --probe` reads rows that the artifact was trained on, or that chose its checkpoint: what it makes of them says nothing of other rows.",
    threshold=f"At least {_SHARE:.0%} of the texts are among those of train and validation, and at least {_FEWEST} of them. It is read from the manifest, which holds hashes of a fixed sample of the texts; so of many rows the share is an estimate. Artifacts that peftune did not train know nothing of their rows.",
)


def seen_rows(
    texts: Sequence[str],
    trained_on: RowSketch | None,
    chosen_by: RowSketch | None,
    *,
    what: str,
    consequence: str,
) -> Finding | None:
    """Check whether texts were trained on, or chose the checkpoint.

    Args:
        texts: what is scored.
        trained_on: sketch of the training texts; None where it is not known.
        chosen_by: sketch of the validation texts.
        what: what the texts are called in the message, such as `rows of 'train.csv'`.
        consequence: what follows for the figures.
    """
    seen = [
        (word, sketch.share_of(texts), sketch.found_in(texts))
        for word, sketch in (("were trained on", trained_on), ("chose the checkpoint", chosen_by))
        if sketch is not None
    ]
    if sum(share for _, share, _ in seen) < _SHARE:
        return None
    if sum(count for _, _, count in seen) < min(_FEWEST, len(texts)):
        return None
    exact = all(sketch.whole for sketch in (trained_on, chosen_by) if sketch is not None)
    about = "" if exact else "about "
    parts = [f"{about}{share:.0%} {word}" for word, share, count in seen if count]
    return SEEN_ROWS.found(
        "warning",
        f"Of the {len(texts)} {what} {' and '.join(parts)}, so {consequence}.",
        "Score rows that took no part in training, such as those of data.test_file.",
    )


FORGETTING = FindingType(
    code="forgetting",
    scope="run",
    looks_for="The model lost general ability that the base had.",
    threshold="The verdict on a probe is `forgot`: the 95% interval of the loss lies above zero, and its 90% interval is not below the probe's margin.",
)


def find_forgetting(facts: RunFacts) -> Finding | None:
    """Look for probes with the verdict `forgot`; the one furthest past its margin comes first."""
    forgot = [probe for probe in facts.probes if probe.verdict == "forgot"]
    if not forgot:
        return None
    forgot.sort(key=lambda probe: probe.forgetting / (probe.margin or 1.0), reverse=True)
    losses = ", ".join(
        f"'{probe.name}' {probe.before:.3f} to {probe.after:.3f} {probe.unit} ({probe.forgetting:+.4f}, allowed {probe.margin:g})"
        for probe in forgot
    )
    return FORGETTING.found("warning", f"The model forgot: {losses}.", _advice(facts))


def _advice(facts: RunFacts) -> str:
    """Name the mitigations that this run does not use yet."""
    mitigations = ["lower training.learning_rate", "train for fewer epochs"]
    if not facts.recipe.forgetting.regularizers:
        mitigations.append("add a regularizer (forgetting.regularizers: kl-to-base or replay)")
    if facts.recipe.strategy.name == "full":
        mitigations.append("try lora or head-only")
    sentence = f"{', '.join(mitigations)}, or scale the change down after training with 'peftune adapter rescale'."
    return f"{sentence[0].upper()}{sentence[1:]} Each may cost accuracy: compare."


OVER_BUDGET = FindingType(
    code="over-budget",
    scope="run",
    looks_for="No checkpoint could be chosen, so the last weights were kept.",
    threshold="Every checkpoint forgot more than `forgetting.budget` on the text measured during training.",
)


def find_over_budget(facts: RunFacts) -> Finding | None:
    """Look for a checkpoint within the budget."""
    budget = facts.recipe.forgetting.budget
    least = _least_forgetting(facts)
    if budget is None or least is None or least <= budget:
        return None
    return OVER_BUDGET.found(
        "warning",
        f"Every checkpoint forgot more than the budget of {budget:g} bits per byte on the text measured during training, at least {least:+.4f}. None could be chosen, so the weights are those of the last step.",
        "Hold forgetting down with forgetting.regularizers, lower training.learning_rate, evaluate more often, or raise forgetting.budget.",
    )


def _least_forgetting(facts: RunFacts) -> float | None:
    """Return the smallest value that was measured during training; None where none was."""
    watched = facts.recipe.forgetting.during_training
    if watched is None:
        return None
    key = f"{KEY}{watched.probe.label}"
    found = [point[key] for point in facts.training.curve if key in point]
    return min((math.inf if math.isnan(value) else value for value in found), default=None)


CONTROL_FAILED = FindingType(
    code="control-failed",
    scope="run",
    looks_for="The forgetting figures rest on a base that is not the base.",
    threshold="`adapter_off_forgetting` is not exactly 0.0; switching the adapter off is exact, so any other value is a fault.",
)


def find_failed_control(facts: RunFacts) -> Finding | None:
    """Check whether the model with its adapter off is the base."""
    if facts.control in {None, 0.0}:
        return None
    return CONTROL_FAILED.found(
        "error",
        f"With the adapter off the model is not the base: a change of {facts.control:.3g} bits per byte remains.",
        "Do not use the forgetting figures; the strategy changes weights that it does not declare.",
    )
