"""A comparison made up for the tests of the report: three strategies, two seeds, awkward names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.baselines.baseline import Baseline
from peftune.experiments.compare.summary import (
    Difference,
    Estimate,
    Front,
    Matched,
    Standing,
    Summary,
)
from peftune.experiments.report import Cost, Forgetting, Identity, PathPoint, Run
from peftune.experiments.run_evidence import DocumentScores, Evidence, ScoredRows
from peftune.experiments.run_folder import write_json
from peftune.findings import CheckReport, CheckResult
from peftune.findings.finding import Finding, Lengths
from peftune.forgetting.results import ProbeResult
from peftune.stats.tests import McNemar
from peftune.tasks import methods_of
from peftune.tasks.scores import Learning

STRATEGIES = ("full", "lora", "head-only")
SEEDS = (0, 1)
PROBE = "general-text"
ATTACK = "<script>alert('x')</script>"
LABELS = ("negative", "so-so & <b>odd</b>", "positive")
ANSWER = (
    "Use lora: it is as accurate as full (0.71 against 0.72) & forgets less than a third of it."
)
ROWS, DOCUMENTS = 60, 24

_SKILL = {"full": 2.2, "lora": 2.1, "head-only": 0.9}
_COST = {"full": 0.412345, "lora": 0.123456, "head-only": 0.0}


def comparison(names: Sequence[str] = LABELS) -> tuple[Summary, list[Evidence]]:
    """Make up a whole comparison; the same at every call."""
    runs = [evidence(strategy, seed, names) for strategy in STRATEGIES for seed in SEEDS]
    return summary(), runs


def label_names(count: int) -> list[str]:
    """Make up names of labels as long as those of bank customers' questions."""
    ends = ("charged_twice_by_exchange_rate", "pending", "not_received")
    return [f"card_payment_{index}_{ends[index % 3]}" for index in range(count)]


def renamed(thing: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - whatever a report is made of
    """Call strategies by other names, wherever they stand."""
    if isinstance(thing, str):
        return names.get(thing, thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        values = ((one.name, getattr(thing, one.name)) for one in dataclasses.fields(thing))
        return dataclasses.replace(thing, **{name: renamed(of, names) for name, of in values})
    if type(thing) is dict:
        return {renamed(key, names): renamed(value, names) for key, value in thing.items()}
    if type(thing) in {list, tuple}:
        return type(thing)(renamed(one, names) for one in thing)
    return thing


def evidence(strategy: str, seed: int, names: Sequence[str] = LABELS) -> Evidence:
    """Make up one run, its rows and its documents."""
    rng = np.random.default_rng([STRATEGIES.index(strategy), seed])
    size, labels = max(ROWS, 4 * len(names)), len(names)
    truth = np.arange(size) % labels
    logits = rng.normal(size=(size, labels))
    logits[np.arange(size), truth] += _SKILL[strategy]
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    learning = methods_of("single-label").score(
        logits,
        truth.tolist(),
        names=names,
        split="test",
        baselines={
            "majority": {"accuracy": 0.3334, "macro_f1": 0.1667},
            "tfidf_logistic_regression": {"accuracy": 0.5511, "macro_f1": 0.5499},
        },
        curve=_curve(strategy, rng),
    )
    rows = ScoredRows(
        ids=[f"row-{index}" for index in range(size)],
        texts=[
            f"{ATTACK} post {index} | with a pipe, *stars* and ümläut 🙂" for index in range(size)
        ],
        names=names,
        labels=truth,
        predicted=logits.argmax(-1),
        probabilities=chances,
        leaked=np.zeros(size, dtype=np.bool_),
    )
    return Evidence(_run(strategy, seed, learning), rows, {PROBE: _documents(strategy, rng)})


def _curve(strategy: str, rng: np.random.Generator) -> list[dict[str, float]]:
    points: list[dict[str, float]] = []
    for step in range(10, 101, 10):
        noise = float(rng.normal(scale=0.02))
        points.append({"step": step, "epoch": step / 50, "train_loss": 1.1 - step / 150 + noise})
        if step % 50 == 0:
            points.append(
                {
                    "step": step,
                    "epoch": step / 50,
                    "train_sample_loss": 0.85 - step / 200 + noise,
                    "validation_loss": 0.9 - step / 500 + noise,
                    "validation_accuracy": 0.5 + step / 500 + noise,
                    f"forgetting_{PROBE}-watched": _COST[strategy] * step / 100,
                }
            )
    return points


def _run(strategy: str, seed: int, learning: Learning) -> Run:
    lost = _COST[strategy] * (1 + seed / 10)
    probe = ProbeResult(
        name=PROBE,
        type="lm-loss",
        metric="bits_per_byte",
        unit="bits per byte",
        higher_is_better=False,
        before=1.7001,
        after=1.7001 + lost,
        forgetting=lost,
        ci95=(lost - 0.0123, lost + 0.0123),
        ci90=(lost - 0.01, lost + 0.01),
        margin=0.05,
        verdict="forgot" if lost else "retained",
        power=None,
        kl=None,
        kl_ci95=None,
        mcnemar=None,
        heads=None,
        quantization=None,
        details={},
        n_documents=DOCUMENTS,
        n_tokens=999,
        data_sha256="c" * 64,
        protocol={},
        reason=None,
    )
    accuracy, macro_f1 = learning.accuracy or 0.0, learning.macro_f1 or 0.0
    path = [
        PathPoint(
            strength,
            None,
            accuracy * (0.5 + strength / 2),
            macro_f1 * (0.5 + strength / 2),
            {PROBE: lost * strength**2},
        )
        for strength in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    path += [
        PathPoint(1.0, step, accuracy - (100 - step) / 500, 0.5, {PROBE: lost * step / 100})
        for step in (50, 100)
    ]
    finding = Finding(
        "nothing-learned",
        "warning",
        f"The accuracy of {learning.accuracy:.3f} is not clearly above {ATTACK}.",
        "Raise training.learning_rate.",
    )
    return Run(
        folder=Path(f"{strategy}-seed{seed}"),
        run=Identity(
            name=f"posts {ATTACK}",
            strategy=strategy,
            strategy_config={"name": strategy},
            seed=seed,
            base_model="bundled:tiny-gpt2",
            base_fingerprint="a" * 64,
            recipe_sha256=f"{STRATEGIES.index(strategy)}{seed}" + "b" * 62,
            data_fingerprint="d" * 64,
            texts_sha256="e" * 64,
            order_sha256="f" * 64,
        ),
        learning=learning,
        forgetting=Forgetting([probe], {"adapter_off_forgetting": 0.0}, probe.verdict, path=path),
        cost=Cost(
            12.34 + seed, 99.9, 512 * 1024**2, 131_840, 5_454_080, 537_461, 2400, 150, "float32"
        ),
        findings=[finding] if strategy == "head-only" else [],
        environment={"versions": {"python": "3.11.7"}, "device": "cpu", "threads": seed + 1},
        checks=_checks(),
    )


def _checks() -> CheckReport:
    found = CheckResult("html", "warn", f"1 row with HTML, such as {ATTACK}.", "Mend it.", 1, {})
    lengths = Lengths(64, [0, 40, 80], {"train": [50, 10]}, {"train": 21.0}, {"train": 90}, {"train": 4})  # fmt: skip
    return CheckReport("warn", {"train": 60}, [found], lengths)


def _documents(strategy: str, rng: np.random.Generator) -> DocumentScores:
    weight: NDArray[np.float64] = np.linspace(50.0, 400.0, DOCUMENTS)
    before = 1.7 * weight
    change = _COST[strategy] * rng.uniform(0.2, 2.0, DOCUMENTS) * weight
    excerpts = [
        f"{ATTACK} paragraph {index} of general text, as it begins" for index in range(DOCUMENTS)
    ]
    return DocumentScores(before, before + change, weight, excerpts, higher_is_better=False)


def summary() -> Summary:
    """Make up what the comparison says, with figures that stand nowhere else."""
    return Summary(
        answer=ANSWER,
        held_equal="examples_seen",
        standings=[
            _standing("full", (0.72134, 0.66111, 0.77222), (0.43219, 0.39111, 0.47222), "a", "a"),
            _standing("lora", (0.71456, 0.65333, 0.76444), (0.12987, 0.10111, 0.15222), "a", "b"),
            _standing("head-only", (0.48765, 0.42111, 0.54888), (0.0, 0.0, 0.0), "b", "c"),
        ],
        differences=[
            _difference("accuracy", "full", "lora", (0.00678, -0.03111, 0.04222), 0.62111),
            _difference(f"forgetting.{PROBE}", "full", "lora", (0.30232, 0.2611, 0.3422), 0.00001),
            Difference(
                "accuracy",
                "full",
                "head-only",
                0.23369,
                None,
                None,
                None,
                {},
                significant=False,
                ranked=False,
                reason="they read unequal numbers of rows",
            ),
        ],
        matched=[
            Matched(
                probe=PROBE,
                accuracy=0.70077,
                forgetting={
                    "full": Estimate(0.33579, (0.30111, 0.37222), (0.33, 0.34)),
                    "lora": Estimate(0.11358, (0.09111, 0.13222), (0.11, 0.12)),
                    "head-only": Estimate(None, None, (None, None), "not reached"),
                },
                differences=[
                    _difference(
                        f"forgetting.{PROBE}", "full", "lora", (0.22221, 0.18, 0.26), 0.002
                    )
                ],
            )
        ],
        fronts=[
            Front(f"forgetting.{PROBE}", ["full", "lora", "head-only"]),
            Front("train_seconds", ["full", "head-only"]),
        ],
        baselines=[
            Baseline("majority", "majority class", 0.33391, 0.16701, (0.27, 0.39)),
            Baseline("few_shot_0", "0-shot prompt", 0.35777, 0.30123, (0.29, 0.42)),
            Baseline(
                "few_shot_16", "16-shot prompt", None, None, None, reason="the examples do not fit"
            ),
            Baseline(
                "tfidf_logistic_regression",
                "TF-IDF + logistic regression",
                0.55119,
                0.54991,
                (0.49, 0.61),
                details={"C": 1.0},
            ),
        ],
    )


def _standing(
    strategy: str,
    accuracy: tuple[float, float, float],
    forgetting: tuple[float, float, float],
    tie: str,
    tie_forgetting: str,
) -> Standing:
    key = f"forgetting.{PROBE}"
    size = 21_000_000 if strategy == "full" else 537_461
    return Standing(
        strategy=strategy,
        seeds=SEEDS,
        learned=strategy != "head-only",
        figures={
            "accuracy": _estimate(accuracy),
            "macro_f1": _estimate(accuracy),
            key: _estimate(forgetting),
            "train_seconds": Estimate(12.84, None, (12.34, 13.34)),
            "peak_memory_bytes": Estimate(536_870_912.0, None, (512 * 1024**2,) * 2),
            "artifact_bytes": Estimate(float(size), None, (size, size)),
            "trainable_parameters": Estimate(None, None, (None, None), "not counted"),
        },
        examples_seen=2400,
        steps=150,
        ties={"accuracy": tie, key: tie_forgetting},
    )


def _estimate(figures: Sequence[float]) -> Estimate:
    mean, low, high = figures
    return Estimate(mean, (low, high), (mean, mean))


def _difference(
    key: str, first: str, second: str, figures: Sequence[float], p_value: float
) -> Difference:
    mean, low, high = figures
    return Difference(
        key,
        first,
        second,
        mean,
        (low, high),
        p_value,
        p_value,
        {0: McNemar(3, 4, 1.0)},
        significant=p_value < 0.05,
        ranked=True,
    )


def write_run(item: Evidence, folder: Path) -> Path:
    """Write a run folder as `peftune run` leaves it, without the model."""
    folder.mkdir(parents=True)
    rows, run = item.rows, item.run
    write_json(run.as_json(), folder / "report.json")
    predictions = [
        {
            "id": row,
            "label": rows.names[int(rows.labels[index])],
            "predicted": rows.names[int(rows.predicted[index])],
            "probabilities": dict(
                zip(rows.names, rows.probabilities[index].tolist(), strict=True)
            ),
        }
        for index, row in enumerate(rows.ids)
    ]
    texts = [
        {"id": row, "text": text, **({"leaked": True} if leaked else {})}
        for row, text, leaked in zip(rows.ids, rows.texts, rows.leaked, strict=True)
    ]
    documents = [
        {
            "probe": probe,
            "document": index,
            "before": float(scores.before[index]),
            "after": float(scores.after[index]),
            "weight": float(scores.weight[index]),
            "excerpt": excerpt,
        }
        for probe, scores in item.documents.items()
        for index, excerpt in enumerate(scores.excerpts)
    ]
    for name, lines in (("predictions", predictions), ("texts", texts), ("documents", documents)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    recipe = f"version: 1\nname: {json.dumps(run.run.name)}\n"
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return folder
