"""Plant wrong labels and see what `peftune check --label-noise` makes of them: the table of docs/results.md.

    python tools/measure_label_noise.py quickstart --seeds 0,1,2

Of the train rows a share gets another label: `even`, any other; `one way`, the second label for the
first, a share of the rows of the first. The validation rows keep theirs.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from peftune.baselines.simple import frozen_base
from peftune.data.task_data import Task, load_task
from peftune.findings.label_noise import LabelNoise, label_noise_of
from peftune.models.inference import pooled_states
from peftune.models.prepare import preparation_of
from peftune.recipe import Recipe, read_recipe, resolve

RATES = (0.0, 0.05, 0.1, 0.2, 0.4)
HEADINGS = (
    "planted",
    "of all rows",
    "seed",
    "probe",
    "verdict",
    "share",
    "95% interval",
    "one way",
    "confident joint",
    "rows",
    "precision",
    "recall",
    "accuracy",
    "without rows",
)


def main() -> None:
    """Plant, look and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    recipe = resolve(read_recipe(arguments.recipe, arguments.overrides))
    task = load_task(recipe.data)
    # Rows are called by their place, whatever ids the file has.
    places = tuple(map(str, range(len(task.train))))
    task = dataclasses.replace(task, train=dataclasses.replace(task.train, ids=places))
    train, validation = _features(recipe, task)
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for way, rate in (
        *(("even", rate) for rate in RATES),
        *(("one way", rate) for rate in RATES[1:]),
    ):
        for seed in map(int, arguments.seeds.split(",")):
            planted = plant(np.asarray(task.train.labels), rate, way=way, seed=seed)
            rows = dataclasses.replace(task.train, labels=tuple(planted.tolist()))
            found = label_noise_of(
                dataclasses.replace(task, train=rows), train, validation, seed=seed
            )
            wrong = set(np.flatnonzero(planted != np.asarray(task.train.labels)).tolist())
            cells = _cells(found, wrong, len(task.train))
            print(
                f"| {way} {rate:.0%} | {' | '.join((cells[0], str(seed), *cells[1:]))} |",
                flush=True,
            )


def plant(labels: NDArray[np.int64], rate: float, *, way: str, seed: int) -> NDArray[np.int64]:
    """Change labels: an even share of all rows, or a share of the first label's rows."""
    draw, planted = np.random.default_rng(seed), labels.copy()
    among = np.arange(len(labels)) if way == "even" else np.flatnonzero(labels == 0)
    chosen = draw.permutation(among)[: round(rate * len(among))]
    count = int(labels.max()) + 1
    step = draw.integers(1, count, len(chosen)) if way == "even" else 1
    planted[chosen] = (labels[chosen] + step) % count
    return planted


def _features(recipe: Recipe, task: Task) -> Iterator[NDArray[np.float64]]:
    model = frozen_base(recipe, task)
    preparation = preparation_of(model)
    for rows in (task.train, task.validation):
        yield pooled_states(
            model, preparation.tokenizer, rows.texts, max_length=preparation.max_length
        ).astype(np.float64)


def _cells(found: LabelNoise, wrong: set[int], count: int) -> tuple[str, ...]:
    named = {suspect.row for suspect in found.rows}
    hits = len(named & wrong)
    way, scores = found.one_way, found.left_out
    return (
        f"{len(wrong) / count:.1%}",
        f"{found.probe_accuracy:.2f}",
        found.verdict,
        f"{found.share:.1%}",
        f"{found.interval[0]:.1%} to {found.interval[1]:.1%}",
        "-"
        if way is None
        else f"{way.share:.1%} ({way.interval[0]:.1%} to {way.interval[1]:.1%}) {way.given} for {way.likely}",
        f"{found.confident_joint_share:.1%}",
        str(found.suspects),
        f"{hits / len(named):.2f}" if named else "-",
        f"{hits / len(wrong):.2f}" if named and wrong else "-",
        "-" if scores is None else f"{scores.accuracy:.3f}",
        "-" if scores is None else f"{scores.accuracy_without:.3f} (p = {scores.p_value:.2f})",
    )


if __name__ == "__main__":
    main()
