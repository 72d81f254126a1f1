"""Measure what another start is worth, and what it costs: the table of docs/results.md.

    python tools/measure_starts.py OUT cold.yaml domain.yaml transfer.yaml

Every recipe is run with every seed and strategy; the first is what the others are compared with, on the
same rows. What OUT holds already is not run again. A strategy's learning rate stands in the recipes'
`compare.training`, and holds for the stages too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import peftune
from peftune.experiments.run_evidence import Evidence, read_evidence
from peftune.recipe import Recipe, read_recipe
from peftune.stats.crossed import Mean, crossed_mean
from peftune.stats.intervals import contributions

SEEDS = (0, 1, 2)
Values = NDArray[np.float64]


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--strategies", default="lora,full")
    arguments = parser.parse_args()
    print(
        "| strategy | start | accuracy | against the cold start | forgetting, bits per byte | by stage |"
    )
    print("|---|---|---|---|---|---|")
    for strategy in arguments.strategies.split(","):
        found = {
            Path(path).stem: [
                read_evidence(
                    peftune.run(
                        _with_rates(read_recipe(path, [f"training.seed={seed}"]), strategy),
                        strategy=strategy,
                        output=arguments.output / f"{Path(path).stem}-{strategy}-{seed}",
                    ).folder
                )
                for seed in SEEDS
            ]
            for path in arguments.recipes
        }
        cold = next(iter(found.values()))
        for name, items in found.items():
            print(_line(strategy, name, items, None if items is cold else cold))


def _with_rates(recipe: Recipe, strategy: str) -> Recipe:
    """Give the stages what the strategy has for itself in the recipe's own training."""
    own = recipe.compare.training.get(strategy, {})
    stages = tuple(
        stage.model_copy(update={"training": stage.training.model_copy(update=own)})
        for stage in recipe.stages
    )
    return recipe.model_copy(update={"stages": stages})


def _line(
    strategy: str, name: str, items: Sequence[Evidence], cold: Sequence[Evidence] | None
) -> str:
    probe = items[0].run.forgetting.probes[0].name
    against = (
        ""
        if cold is None
        else _shown(crossed_mean(_right(items) - _right(cold), unit="rows"), "+.3f")
    )
    cells = [
        strategy,
        name,
        _shown(crossed_mean(_right(items), unit="rows"), ".3f"),
        against,
        _shown(crossed_mean(_forgotten(items, probe), unit="documents"), "+.3f"),
        "; ".join(_stages(items, probe)),
    ]
    return f"| {' | '.join(cells)} |"


def _right(items: Sequence[Evidence]) -> Values:
    """1.0 where a row got its label, (seeds, rows)."""
    return np.stack([item.rows.labels == item.rows.predicted for item in items]).astype(np.float64)


def _forgotten(items: Sequence[Evidence], probe: str) -> Values:
    """What each document adds to the forgetting, (seeds, documents)."""
    documents = [item.documents[probe] for item in items]
    totals = np.stack([one.after - one.before for one in documents])
    return contributions(totals, documents[0].weight)


def _stages(items: Sequence[Evidence], probe: str) -> Iterator[str]:
    """Say what each stage added, as a mean over the seeds."""
    for stages in zip(*(item.run.forgetting.stages for item in items), strict=True):
        mean = float(np.mean([stage.forgetting[probe] for stage in stages]))
        yield f"{stages[0].name} {mean:+.3f}"


def _shown(mean: Mean, form: str) -> str:
    interval = mean.ci95
    return f"{mean.value:{form}}" + (
        f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
    )


if __name__ == "__main__":
    main()
