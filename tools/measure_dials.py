"""Measure what each dial costs and saves: the tables of docs/results.md.

    python tools/measure_dials.py tweets.csv prose.txt OUT \
        --probe '{type: lm-loss, file: wikitext2-valid.txt, articles: true, max_characters: 4000}' \
        --probe cloze:lambada.jsonl --probe minimal-pairs:blimp.jsonl

`tweets.csv` has the columns `text` and `label_text`; `prose.txt` is what the regularizers read. The
first probe is the one by which the dials are compared. What OUT holds already is not done again, so
several of these may run at once with `--seeds`, and a last one without prints the tables.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

import peftune
from peftune.experiments import Run
from peftune.experiments.rescale import Head, sweep
from peftune.experiments.run_evidence import probe_records
from peftune.experiments.run_inputs import read_inputs
from peftune.probes import Probe
from peftune.recipe import read_probe, read_recipe

STRATEGIES = ("full", "lora", "lora-8bit")
REGULARIZERS = {
    "plain": "[]",
    "kl-to-base": "[{{type: kl-to-base, weight: 1.0, sequences: 8, length: 64, text: {{file: {text}}}}}]",
    "replay": "[{{type: replay, weight: 1.0, fraction: 0.25, length: 64, text: {{file: {text}}}}}]",
}
LOWER_RATE = 1.0e-3
STRENGTHS = (0.25, 0.5, 0.75)

RECIPE = """\
version: 1
name: dials
model: {{name_or_path: "bundled:tiny-gpt2", max_length: 128}}
data:
  train_file: {tweets}
  label_column: label_text
  labels: [negative, neutral, positive]
  empty_text: drop
  test_split: 0.2
  validation_split: 0.05
  max_train_examples: 4000
  max_test_examples: 5000
strategy: {{name: lora}}
training: {{num_train_epochs: 3, per_device_train_batch_size: 32, learning_rate: 3.0e-3}}
compare:
  training:
    full: {{learning_rate: 5.0e-4}}
output_dir: runs/dials
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One dial on one strategy and seed: accuracy, and forgetting by probe, positive is worse."""

    strategy: str
    dial: str
    seed: int
    accuracy: float
    probes: Sequence[Mapping[str, Any]]

    @property
    def nats(self) -> float:
        """Forgetting of the first probe in nats per token."""
        return float(self.probes[0]["details"]["nats_per_token_forgetting"])


def main() -> None:
    """Run, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tweets", type=Path)
    parser.add_argument("general", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--probe", action="append", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    probes = [read_probe(spec) for spec in arguments.probe]
    out: Path = arguments.output
    out.mkdir(parents=True, exist_ok=True)
    recipe = out / "dials.yaml"
    recipe.write_text(RECIPE.format(tweets=json.dumps(str(arguments.tweets.resolve()))), "utf-8")
    general = json.dumps(str(arguments.general.resolve()))
    rows = list(_rows(recipe, general, out, seeds, probes))
    print(table(rows))


def _rows(
    recipe: Path, general: str, out: Path, seeds: Sequence[int], probes: Sequence[Probe]
) -> Iterator[Row]:
    train, test = _labeled_files(recipe, out)
    for seed in seeds:
        for strategy in STRATEGIES:
            cell = f"{strategy}-seed{seed}"
            for dial, terms in REGULARIZERS.items():
                override = "forgetting.regularizers=" + terms.format(text=general)
                run = _run(recipe, strategy, seed, [override], out / f"{cell}-{dial}")
                yield _row(run, dial, _kept(out / f"{cell}-{dial}.json", _forgetting(run, probes)))
            if strategy != "full":
                override = f"training.learning_rate={LOWER_RATE}"
                run = _run(recipe, strategy, seed, [override], out / f"{cell}-lower-rate")
                kept = _kept(out / f"{cell}-lower-rate.json", _forgetting(run, probes))
                yield _row(run, "lower rate", kept)
            plain = _run(recipe, strategy, seed, [], out / f"{cell}-plain")
            for head, fit, alphas, asked in (
                ("refitted", train, (0.5,), probes),
                ("kept", None, STRENGTHS, probes[:1]),
            ):
                points = _points(plain, test, fit, alphas, asked)
                for point in _kept(out / f"{cell}-{head}.json", points):
                    yield _strength_row(plain, head, point)


def _labeled_files(recipe: Path, out: Path) -> tuple[Path, Path]:
    """Write the rows that the runs learn from and are judged on."""
    task, _, _ = read_inputs(read_recipe(recipe))
    _, judged = task.evaluation
    for name, rows in (("train", task.train), ("test", judged)):
        lines = (
            json.dumps({"text": text, "label": task.labels[label]})
            for text, label in zip(rows.texts, rows.labels, strict=True)
        )
        (out / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return out / "train.jsonl", out / "test.jsonl"


def _run(recipe: Path, strategy: str, seed: int, overrides: Sequence[str], folder: Path) -> Run:
    seeded = [f"training.seed={seed}", *overrides]
    return peftune.run(recipe, overrides=seeded, strategy=strategy, output=folder)


def _forgetting(run: Run, probes: Sequence[Probe]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: probe_records(peftune.forget(run.artifact, probes))


def _points(
    run: Run, test: Path, fit: Path | None, alphas: Sequence[float], probes: Sequence[Probe]
) -> Callable[[], list[dict[str, Any]]]:
    def measured() -> list[dict[str, Any]]:
        head: Head = "kept" if fit is None else "refitted"
        points = sweep(run.artifact, test, alphas=alphas, head=head, fit_file=fit, probes=probes)
        return [
            {
                "alpha": point.strength.alpha,
                "accuracy": point.learning.accuracy,
                "probes": probe_records(point.forgetting),
            }
            for point in points
            if point.learning is not None
        ]

    return measured


def _kept(path: Path, measure: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Read what was measured before, or measure it and keep it."""
    if not path.exists():
        path.write_text(json.dumps(measure()), encoding="utf-8")
    kept: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _row(run: Run, dial: str, probes: Sequence[Mapping[str, Any]]) -> Row:
    return Row(run.run.strategy, dial, run.run.seed, run.learning.accuracy, probes)


def _strength_row(plain: Run, head: str, point: Mapping[str, Any]) -> Row:
    dial = f"rescale {point['alpha']:g}, head {head}"
    return Row(plain.run.strategy, dial, plain.run.seed, point["accuracy"], point["probes"])


def table(rows: Sequence[Row]) -> str:
    """One line a strategy and dial: means over seeds with 95% intervals (Student's t), in Markdown."""
    lines = [
        "| strategy | dial | accuracy | nats/token | cut | bits/byte | cloze | pairs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for strategy in STRATEGIES:
        mine = [row for row in rows if row.strategy == strategy]
        plain = {row.seed: row for row in mine if row.dial == "plain"}
        lines += [
            _line(strategy, dial, [row for row in mine if row.dial == dial], plain)
            for dial in dict.fromkeys(row.dial for row in mine)
        ]
    return "\n".join(lines)


def _line(strategy: str, dial: str, rows: Sequence[Row], plain: Mapping[int, Row]) -> str:
    cuts = [plain[row.seed].nats / row.nats for row in rows]
    others = [
        _spread([-row.probes[i]["forgetting"] for row in rows], "+.3f")
        if all(len(row.probes) > i for row in rows)
        else "-"
        for i in (1, 2)
    ]
    cells = [
        strategy,
        dial,
        _spread([row.accuracy for row in rows], ".3f"),
        _spread([row.nats for row in rows], "+.3f"),
        "1" if dial == "plain" else f"{min(cuts):.1f} to {max(cuts):.1f}",
        _spread([row.probes[0]["forgetting"] for row in rows], "+.3f"),
        *others,
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float], form: str) -> str:
    """Show a mean with the 95% interval of Student's t over seeds."""
    mean = statistics.fmean(values)
    if len(values) < 2:  # noqa: PLR2004 - one value has no spread
        return f"{mean:{form}}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:{form}} ± {half:.3f}"


if __name__ == "__main__":
    main()
