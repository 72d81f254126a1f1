"""Figures of a comparison over seeds, against baselines, and the pitfalls that its runs show."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peftune.baselines.baseline import Baseline, scores_of
from peftune.errors import PeftuneError, UsageError
from peftune.experiments.compare.clean_rows import NOT_KEPT, places_of
from peftune.experiments.compare.pairs import Scores
from peftune.experiments.compare.summary import AgainstBaseline, Estimate
from peftune.experiments.report import CONTROL
from peftune.experiments.run_evidence import Evidence, refuse_mixed_runs
from peftune.experiments.run_folder import RECIPE
from peftune.findings.evidence import Collapse, collapsed_seeds, find_collapsed_seeds
from peftune.findings.finding import Finding
from peftune.findings.learning import below_linear_probe, shared_learning_rate, warmup_ahead
from peftune.recipe import Recipe, read_recipe
from peftune.recipe.schema import CompareSection
from peftune.stats.crossed import (
    FEWEST_SEEDS,
    Mean,
    crossed_mean,
    crossed_share,
    crossed_share_change,
    seed_mean,
)
from peftune.stats.intervals import contributions, share_interval
from peftune.stats.scores import ONE_SIDED, better_macro_f1_p_value
from peftune.strategies import HeadOnly

ACCURACY = "accuracy"
MACRO_F1 = "macro_f1"
COSTS = ("train_seconds", "peak_memory_bytes", "artifact_bytes", "trainable_parameters")
NOT_MEASURED = "not measured in every run"
CONTROL_FAILED = "the control failed: with the adapter disabled the model is not the base"
NOWHERE_MEASURED = "not measured in any run"
_ACCURACIES = ("accuracy", "micro_f1")
OF_THESE_MODELS = "fewer than three seeds: the interval speaks of these models on other rows"

BySeed = Mapping[int, Evidence]


def forgetting_key(probe: str) -> str:
    """Return the key of a probe's figure."""
    return f"forgetting.{probe}"


def by_strategy(evidence: Sequence[Evidence]) -> dict[str, BySeed]:
    """Sort runs by strategy, in the order given, and by seed.

    Raises:
        UsageError: two runs have the same strategy and seed, or runs differ in rows or documents.
    """
    refuse_mixed_runs(evidence, advice="Run them on the same data.")
    for one in evidence[1:]:
        _refuse_other_documents(evidence[0], one)
    return _grouped(evidence)


def _grouped(evidence: Sequence[Evidence]) -> dict[str, BySeed]:
    runs: dict[str, dict[int, Evidence]] = {one.run.run.strategy: {} for one in evidence}
    for one in sorted(evidence, key=lambda one: one.run.run.seed):
        runs[one.run.run.strategy][one.run.run.seed] = one
    return dict(runs)


def probes_of(evidence: Sequence[Evidence]) -> list[str]:
    """List the probes of any run, in the order of the recipe."""
    return list(dict.fromkeys(probe for one in evidence for probe in one.documents))


def answers(runs: BySeed) -> Scores:
    """Return right (1) and wrong (0) of each row, by seed."""
    return {
        seed: (one.rows.labels == one.rows.predicted).astype(np.float64)
        for seed, one in runs.items()
    }


def collapsed(runs: BySeed) -> list[Collapse]:
    """List the seeds of a strategy that give nearly every row one label, while others do not."""
    rows = next(iter(runs.values())).rows
    return collapsed_seeds(
        {seed: one.rows.predicted for seed, one in runs.items()}, rows.labels, rows.names
    )


def against_baseline(name: str, runs: BySeed, baseline: Baseline) -> AgainstBaseline | None:
    """Set a strategy against a baseline on the rows that both answered.

    The baseline's own errors are on the same rows, so that it is not a fixed number: what counts is the
    difference row by row. Of a baseline with several choices of examples a row counts by the share
    of them that answers it right. With one or two seeds the interval is over rows, of the mean of these
    models.

    Args:
        name: of the strategy.
        runs: its runs.
        baseline: its labels, and those of the rows.

    Returns:
        None where the baseline was not measured.
    """
    if baseline.accuracy is None:
        return None
    right = np.array(list(answers(runs).values()))  # (seeds, rows)
    rows = next(iter(runs.values())).rows
    places = places_of(baseline, rows)
    if baseline.predicted is None or places is None:
        return _beside(name, right, baseline)
    baseline_right = np.asarray(baseline.predicted) == rows.labels[places]  # (choices, rows)
    gained = right[:, places] - baseline_right.mean(axis=0)
    few = len(gained) < FEWEST_SEEDS
    mean = crossed_share_change(gained.mean(axis=0, keepdims=True) if few else gained)
    return AgainstBaseline(
        strategy=name,
        baseline=baseline.name,
        n=len(places),
        mean=mean.value,
        ci95=mean.ci95,
        beats=mean.ci95 is not None and mean.ci95[0] > 0,
        reason=OF_THESE_MODELS if few and mean.ci95 else mean.reason,
    )


def macro_f1_against(name: str, runs: BySeed, baseline: Baseline) -> AgainstBaseline | None:
    """Set a strategy against a baseline in macro F1, where its checkpoints are not chosen by accuracy.

    A rare label moves macro F1 and hardly the accuracy, which always naming the frequent label does
    not lower. Every seed has to be significantly better by itself, whatever examples a prompted base was
    given.

    Returns:
        None where it is not significantly better, or is not asked.
    """
    first = next(iter(runs.values()))
    significance, places = first.run.learning.significance, places_of(baseline, first.rows)
    if significance is None or significance.metric in _ACCURACIES:
        return None
    if baseline.predicted is None or baseline.macro_f1 is None or places is None:
        return None
    truth, labels = first.rows.labels[places], len(first.rows.names)
    p_value = max(
        better_macro_f1_p_value(
            truth, one.rows.predicted[places], np.asarray(choice), labels=labels, seed=0
        )
        for one in runs.values()
        for choice in baseline.predicted
    )
    if p_value > ONE_SIDED:
        return None
    predicted = [one.rows.predicted[places].tolist() for one in runs.values()]
    scores = [
        scores_of(truth.tolist(), one, classes=range(labels))["macro_f1"] for one in predicted
    ]
    return AgainstBaseline(
        strategy=name,
        baseline=baseline.name,
        n=len(places),
        mean=float(np.mean(scores)) - baseline.macro_f1,
        ci95=None,
        beats=True,
        reason=f"macro F1 has a test alone: p = {p_value:.2g} or less for every seed",
        metric="macro_f1",
    )


def _beside(name: str, right: NDArray[np.float64], baseline: Baseline) -> AgainstBaseline:
    """Compare with an accuracy alone: two intervals that do not overlap differ, however paired."""
    own = crossed_share(right if len(right) >= FEWEST_SEEDS else right.mean(axis=0, keepdims=True))
    accuracy = baseline.accuracy or 0.0
    rows = len(baseline.rows) or int(baseline.details.get("n", right.shape[1]))
    above = own.ci95 is not None and own.ci95[0] > share_interval(accuracy, rows)[1]
    return AgainstBaseline(
        strategy=name,
        baseline=baseline.name,
        n=None,
        mean=own.value - accuracy,
        ci95=None,
        beats=above,
        reason=f"{NOT_KEPT}: it is beaten where the two intervals do not overlap",
    )


def forgotten(runs: BySeed, probe: str) -> Scores:
    """Return each document's contribution to forgetting, by seed.

    Returns:
        Empty if a run lacks the probe, or if the control failed in one: then something moved that
        should not have, and the figures are not to be used.
    """
    if control_failed(runs) or any(probe not in one.documents for one in runs.values()):
        return {}
    found: dict[int, NDArray[np.float64]] = {}
    for seed, one in runs.items():
        scores = one.documents[probe]
        change = scores.after - scores.before
        change = -change if scores.higher_is_better else change
        found[seed] = contributions(change[None], scores.weight)[0]
    return found


def control_failed(runs: BySeed) -> bool:
    """Return whether the control failed in a run: with the adapter disabled it is not its base."""
    controls = [one.run.forgetting.controls.get(CONTROL) for one in runs.values()]
    return any(control not in (None, 0.0) for control in controls)


def accuracy_estimate(runs: BySeed) -> Estimate:
    """Average the accuracy over seeds and rows."""
    values = [one.run.learning.accuracy for one in runs.values()]
    mean = crossed_share(np.array(list(answers(runs).values())))
    return _estimate(mean, values, high=1.0)


def forgetting_estimate(runs: BySeed, probe: str) -> Estimate:
    """Average a probe's forgetting over seeds and documents."""
    scores = forgotten(runs, probe)
    if not scores:
        reason = CONTROL_FAILED if control_failed(runs) else NOT_MEASURED
        return Estimate(None, None, [None] * len(runs), reason)
    values = [one.run.forgetting[probe].forgetting for one in runs.values()]
    mean = crossed_mean(np.array(list(scores.values())), unit="documents")
    return _estimate(mean, values, low=None)


def seed_estimate(values: Sequence[float | None], *, high: float | None = None) -> Estimate:
    """Average a figure that each run has one of, and that is never below zero."""
    known = [value for value in values if value is not None]
    if not known:
        return Estimate(None, None, list(values), NOWHERE_MEASURED)
    mean = seed_mean(known)
    if len(known) < len(values):
        missing = f"not measured in {len(values) - len(known)} of {len(values)} runs"
        reasons = "; ".join(filter(None, (missing, mean.reason)))
        mean = dataclasses.replace(mean, reason=reasons)
    return _estimate(mean, values, high=high)


def _estimate(
    mean: Mean,
    values: Sequence[float | None],
    *,
    low: float | None = 0.0,
    high: float | None = None,
) -> Estimate:
    """Keep an interval within what the figure can be."""
    interval = mean.ci95
    if interval is not None and (low is not None or high is not None):
        below, above = np.clip(interval, low, high)
        interval = (float(below), float(above))
    return Estimate(mean.value, interval, list(values), mean.reason)


def _refuse_other_documents(first: Evidence, other: Evidence) -> None:
    pair = f"'{first.run.folder}' and '{other.run.folder}'"
    for probe in set(first.documents) & set(other.documents):
        if not np.array_equal(first.documents[probe].weight, other.documents[probe].weight):
            message = f"{pair} did not measure '{probe}' on the same documents, so they cannot be compared. Run them with the same probes."
            raise UsageError(message)


_PROBE = "linear_probe"


def pitfalls_ahead(
    recipes: Sequence[Recipe], section: CompareSection, *, rows: int | None
) -> list[Finding]:
    """Find what makes a comparison unequal before any time is spent on it.

    Args:
        recipes: resolved recipe of each run.
        section: what the recipe says of comparisons.
        rows: training rows, where each is one text.
    """
    found = [finding for recipe in recipes for finding in warmup_ahead(recipe.training, rows)]
    own = {name for name, keys in section.training.items() if "learning_rate" in keys}
    if section.held_equal != "tuned":
        found += _shared({recipe.strategy.name: recipe for recipe in recipes}, own)
    return list(dict.fromkeys(found))


def pitfalls_found(evidence: Sequence[Evidence], baselines: Sequence[Baseline]) -> list[Finding]:
    """Find what the runs of a comparison show beside their baselines.

    Args:
        evidence: the finished runs.
        baselines: the baselines on the same rows; of both, rows that were read in training are left
            out.
    """
    runs = _grouped(evidence)
    found = [find_collapsed_seeds(name, len(of), collapsed(of)) for name, of in runs.items()]
    below = _head_below_probe(runs.get(HeadOnly.name, {}), baselines)
    return [one for one in (*found, below) if one is not None]


def _head_below_probe(runs: BySeed, baselines: Sequence[Baseline]) -> Finding | None:
    probe = next((one for one in baselines if one.name == _PROBE), None)
    if probe is None or not runs:
        return None
    found = against_baseline(HeadOnly.name, runs, probe)
    if found is None or probe.accuracy is None:
        return None
    accuracies = [one.run.learning.accuracy for one in runs.values()]
    return below_linear_probe(
        [accuracy for accuracy in accuracies if accuracy is not None], probe.accuracy, found.ci95
    )


def pitfalls_of_runs(evidence: Sequence[Evidence], baselines: Sequence[Baseline]) -> list[Finding]:
    """Find the same in runs that were named one by one, by the recipes in their folders."""
    recipes = {}
    for one in evidence:
        # A report can be made where a run's recipe cannot be read, such as one of a plug-in that
        # is not installed: there nothing is known of its learning rate.
        with contextlib.suppress(PeftuneError):
            recipes[one.run.run.strategy] = read_recipe(one.run.folder / RECIPE)
    return [*_shared(recipes, set()), *pitfalls_found(evidence, baselines)]


def _shared(recipes: Mapping[str, Recipe], own: set[str]) -> list[Finding]:
    """Look at the learning rates of strategies that were given none of their own."""
    rates = {
        name: recipe.training.learning_rate
        for name, recipe in recipes.items()
        if name not in own and recipe.training.learning_rate is not None
    }
    defaults = {
        name: recipe.strategy.training_defaults.learning_rate for name, recipe in recipes.items()
    }
    finding = shared_learning_rate(rates, defaults)
    return [] if finding is None else [finding]
