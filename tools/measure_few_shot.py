"""Measure few-shot prompting beside fine-tuning on the same examples: the table of docs/results.md.

    python tools/measure_few_shot.py quickstart OUT

For every number of examples and every seed, the rows that stand in the prompts are also the rows that
each strategy is trained on: 60 steps, one evaluation at the end, so no checkpoint is chosen by
further labeled rows. What OUT holds already is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import peftune
from peftune.data.rows import Rows
from peftune.data.task_data import Task, load_task
from peftune.experiments.run_evidence import read_evidence
from peftune.recipe import Recipe, read_recipe, resolve
from peftune.stats.crossed import Mean, crossed_mean

STEPS = 60
SEEDS = (0, 1, 2)
Right = NDArray[np.float64]
"""1.0 where a row got its label, (seeds, rows)."""


def main() -> None:
    """Prompt, train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("output", type=Path)
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--strategies", default="lora,full,head-only")
    arguments = parser.parse_args()
    shots = [int(shot) for shot in arguments.shots.split(",")]
    strategies = arguments.strategies.split(",")
    out: Path = arguments.output
    recipe = resolve(read_recipe(arguments.recipe))
    task = load_task(recipe.data)
    found = peftune.fewshot(arguments.recipe, shots=(0, *shots), output=out)
    truth = np.array(task.evaluation[1].labels)
    print("| k | what | accuracy, 95% interval | against the prompt | seconds a seed |")
    print("|---|---|---|---|---|")
    _print("-", "majority class", _right(found.majority.predicted, truth), None, None)
    for baseline in found.prompted:
        shot, choices = baseline.details["shots"], len(baseline.predicted or ())
        prompted = _right(baseline.predicted, truth)
        _print(shot, "base prompted", prompted, None, baseline.seconds / choices)
        for strategy in strategies if shot else ():
            runs = [
                _run(
                    recipe,
                    task,
                    choice["examples"],
                    strategy=strategy,
                    seed=choice["seed"],
                    folder=out / f"k{shot}",
                )
                for choice in baseline.details["choices"]
            ]
            right = np.array([_right_of(run, task) for run in runs])
            seconds = float(np.mean([run.cost.train_seconds or np.nan for run in runs]))
            _print(shot, f"{strategy}, trained", right, prompted, seconds)


def _run(
    recipe: Recipe, task: Task, ids: Sequence[str], *, strategy: str, seed: int, folder: Path
) -> peftune.Run:
    """Train on the rows with these ids alone."""
    name = folder / f"seed{seed}"
    name.mkdir(parents=True, exist_ok=True)
    rows_of = {row: index for index, row in enumerate(task.train.ids)}
    learned = task.train.take([rows_of[row] for row in ids])
    splits = {"train": learned, "validation": task.validation, "test": task.evaluation[1]}
    for split, rows in splits.items():
        _write(rows, task.labels, name / f"{split}.jsonl")
    overrides = [
        f"model.name_or_path={recipe.model.name_or_path}",
        f"data={_data(name, task.labels)}",
        f"strategy={{name: {strategy}}}",
        f"training.seed={seed}",
        f"training.max_steps={STEPS}",
        "training.eval_strategy=steps",
        f"training.eval_steps={STEPS}",
        f"training.per_device_train_batch_size={min(16, len(ids))}",
        "forgetting.probes=[]",
    ]
    return peftune.run("quickstart", overrides=overrides, output=name / strategy)


def _data(folder: Path, labels: Sequence[str]) -> str:
    files = {
        f"{split}_file": str(folder / f"{split}.jsonl")
        for split in ("train", "validation", "test")
    }
    return json.dumps({**files, "labels": list(labels)})


def _write(rows: Rows, labels: Sequence[str], path: Path) -> None:
    lines = (
        json.dumps({"id": row, "text": text, "label": labels[label]}) + "\n"
        for row, text, label in zip(rows.ids, rows.texts, rows.labels, strict=True)
    )
    path.write_text("".join(lines), encoding="utf-8")


def _right(predicted: Sequence[Sequence[int]] | None, truth: NDArray[np.int64]) -> Right:
    return (np.array(predicted or [], dtype=np.int64) == truth).astype(np.float64)


def _right_of(run: peftune.Run, task: Task) -> NDArray[np.float64]:
    rows = read_evidence(run.folder).rows
    if list(rows.ids) != list(task.evaluation[1].ids):
        message = f"{run.folder} was judged on other rows"
        raise ValueError(message)
    return (rows.labels == rows.predicted).astype(np.float64)


def _print(
    shot: int | str, name: str, right: Right, prompted: Right | None, seconds: float | None
) -> None:
    against = "" if prompted is None else _shown(crossed_mean(right - prompted, unit="rows"), "+")
    time = "" if seconds is None else f"{seconds:.0f}"
    print(f"| {shot} | {name} | {_shown(crossed_mean(right, unit='rows'))} | {against} | {time} |")


def _shown(mean: Mean, sign: str = "") -> str:
    interval = mean.ci95
    if interval is None:
        return f"{mean.value:{sign}.3f}"
    return f"{mean.value:{sign}.3f} [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


if __name__ == "__main__":
    main()
