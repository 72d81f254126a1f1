"""What a careful reader asks of a comparison: before its runs, and of what they found."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from peftune.baselines.scores import Baseline
from peftune.compare.figures import against_baseline, collapsed
from peftune.diagnosis import (
    Finding,
    below_linear_probe,
    find_collapsed_seeds,
    shared_learning_rate,
    warmup_ahead,
)
from peftune.errors import PeftuneError
from peftune.recipe import Recipe, read_recipe
from peftune.recipe.schema import CompareSection
from peftune.runs.evidence import Evidence
from peftune.runs.folder import RECIPE
from peftune.strategies import HeadOnly

_PROBE = "linear_probe"


def pitfalls_ahead(
    cells: Sequence[Recipe], section: CompareSection, *, rows: int | None
) -> list[Finding]:
    """Find what makes a comparison unequal before any time is spent on it.

    Args:
        cells: resolved recipe of each run.
        section: what the recipe says of comparisons.
        rows: training rows, where each is one text.
    """
    found = [finding for cell in cells for finding in warmup_ahead(cell.training, rows)]
    own = {name for name, keys in section.training.items() if "learning_rate" in keys}
    if section.held_equal != "tuned":
        found += _shared({cell.strategy.name: cell for cell in cells}, own)
    return list(dict.fromkeys(found))


def pitfalls_found(evidence: Sequence[Evidence], ladder: Sequence[Baseline]) -> list[Finding]:
    """Find what the runs of a comparison show beside their baselines.

    Args:
        evidence: the finished runs.
        ladder: the baselines on the same rows; of both, rows that were read in training are left
            out.
    """
    runs: dict[str, dict[int, Evidence]] = {}
    for one in evidence:
        runs.setdefault(one.run.run.strategy, {})[one.run.run.seed] = one
    found = [find_collapsed_seeds(name, len(of), collapsed(of)) for name, of in runs.items()]
    return [one for one in (*found, _head_below_probe(evidence, ladder)) if one is not None]


def _head_below_probe(evidence: Sequence[Evidence], ladder: Sequence[Baseline]) -> Finding | None:
    heads = [one for one in evidence if one.run.run.strategy == HeadOnly.name]
    probe = next((one for one in ladder if one.name == _PROBE), None)
    if probe is None or not heads:
        return None
    found = against_baseline(HeadOnly.name, {one.run.run.seed: one for one in heads}, probe)
    if found is None or probe.accuracy is None:
        return None
    accuracies = [one.run.learning.accuracy for one in heads]
    return below_linear_probe(
        [accuracy for accuracy in accuracies if accuracy is not None], probe.accuracy, found.ci95
    )


def pitfalls_of_runs(evidence: Sequence[Evidence], ladder: Sequence[Baseline]) -> list[Finding]:
    """Find the same in runs that were named one by one, by the recipes in their folders."""
    recipes = {}
    for one in evidence:
        # A report can be made where a run's recipe cannot be read, such as one of a plug-in that
        # is not installed: there nothing is known of its learning rate.
        with contextlib.suppress(PeftuneError):
            recipes[one.run.run.strategy] = read_recipe(one.run.folder / RECIPE)
    return [*_shared(recipes, set()), *pitfalls_found(evidence, ladder)]


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
