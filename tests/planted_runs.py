"""Comparisons in which the truth is planted: rows, documents and paths that were drawn, not run."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from peftune.baselines.baseline import Baseline, against, scored_baseline
from peftune.baselines.simple import majority_predictions
from peftune.data.rows import Rows
from peftune.data.task_data import Task
from peftune.experiments.compare.executors import Failure
from peftune.experiments.compare.summary import HeldEqual
from peftune.experiments.report import (
    CONTROL,
    Cost,
    Forgetting,
    Identity,
    PathPoint,
    Run,
    summarized,
)
from peftune.experiments.run_evidence import DocumentScores, Evidence, ScoredRows
from peftune.experiments.run_scores import leaked_rows, leaked_score
from peftune.findings import CheckReport
from peftune.findings.check import find_in_run
from peftune.findings.facts import RunFacts
from peftune.forgetting.before_and_after import Before, Measured
from peftune.forgetting.measurement import ProbeText
from peftune.probes import LanguageModelLoss, Measurement
from peftune.recipe import Recipe, read_recipe
from peftune.tasks import methods_of
from peftune.tasks.scores import Learning, learned_something
from peftune.training.train import TrainingResult

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

PROBE = LanguageModelLoss(dataset_name="bundled:general-text", name="text")
SENTIMENTS = ("negative", "neutral", "positive")
_SHARED = 0.5
"""Share of a row's or a document's variance that all runs have in common."""
_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class World:
    """What all runs of a scenario are scored on.

    Args:
        name: seeds every draw, so that one scenario's numbers do not depend on another's.
        rows: test rows.
        documents: documents of the probe.
        names: the labels.
        shares: share of each label among the rows.
        words: accuracy of the baseline that counts words.
        leaked: how many test rows have a text that is in train as well.
        wrong_labels: share of the test labels that are wrong.
    """

    name: str
    rows: int = 200
    documents: int = 80
    names: tuple[str, ...] = SENTIMENTS
    shares: tuple[float, ...] = (0.3, 0.3, 0.4)
    words: float = 0.55
    leaked: int = 0
    wrong_labels: float = 0.0

    def draw(self, *of: object) -> np.random.Generator:
        """Return a generator of its own for each thing that is drawn."""
        return np.random.default_rng(zlib.crc32("/".join(map(str, (self.name, *of))).encode()))

    @cached_property
    def truth(self) -> Ids:
        """The right label of each row, whatever the test set says."""
        return self._labels(self.rows, "truth")

    @cached_property
    def labels(self) -> Ids:
        """The label of each row in the test set; a wrong one is any other, with equal chance."""
        draw, labels = self.draw("wrong labels"), self.truth.copy()
        wrong = draw.permutation(self.rows)[: round(self.wrong_labels * self.rows)]
        labels[wrong] += draw.integers(1, len(self.names), len(wrong))
        return np.asarray(labels % len(self.names))

    @cached_property
    def difficulty(self) -> Array:
        """How difficult each row is for every model; standard normal."""
        return self.draw("difficulty").normal(size=self.rows)

    @cached_property
    def confused(self) -> Ids:
        """The label that each row is mostly taken for: a neighbor of the right one."""
        step = np.where(self.draw("confused").random(self.rows) < 0.5, 1, -1)
        last = len(self.names) - 1
        step = np.where(self.truth == 0, 1, np.where(self.truth == last, -1, step))
        return np.asarray(self.truth + step)

    @cached_property
    def task(self) -> Task:
        """The rows as a run reads them."""
        train = self._labels(600, "train")
        texts = [f"post {self.name} {row}" for row in range(self.rows)]
        read = [f"read {self.name} {row}" for row in range(len(train))]
        read[: self.leaked] = texts[: self.leaked]
        learned, chosen = (
            Rows([str(row) for row in rows], [read[row] for row in rows], tuple(train[rows].tolist()))
            for rows in (np.arange(500), np.arange(500, 600))
        )  # fmt: skip
        test = Rows([str(row) for row in range(self.rows)], texts, tuple(self.labels.tolist()))
        return Task(self.names, learned, chosen, test, {})

    @cached_property
    def sizes(self) -> Array:
        """Bytes of each document: most are short and a few are long."""
        return np.round(self.draw("sizes").lognormal(7.0, 0.6, self.documents))

    @cached_property
    def base(self) -> Measurement:
        """The base on each document, in bits."""
        each = self.draw("base").normal(1.1, 0.15, self.documents)
        return _measured(self.sizes * each, self.sizes)

    @cached_property
    def text(self) -> ProbeText:
        """The probe with its documents."""
        return ProbeText(PROBE, tuple(f"document {self.name} {n}" for n in range(self.documents)))

    @cached_property
    def baselines(self) -> list[Baseline]:
        """The baselines on the test rows."""
        counted = by_difficulty(self, self.words, self.draw("words")).argmax(-1)
        said = {
            ("majority", "majority class"): majority_predictions(
                self.task.train, self.task.evaluation[1]
            ),
            ("tfidf_logistic_regression", "TF-IDF, logistic regression"): counted.tolist(),
        }
        return [
            scored_baseline(
                name,
                title=title,
                evaluation=self.task.evaluation[1],
                predicted=[ids],
                labels=len(self.names),
                seconds=0.0,
            )
            for (name, title), ids in said.items()
        ]

    def _labels(self, count: int, what: str) -> Ids:
        """Give each label its share, in any order."""
        ends = np.round(np.cumsum(self.shares) * count)
        labels = np.searchsorted(ends, np.arange(count), side="right")
        return self.draw(what).permutation(labels).astype(np.int64)


def _measured(bits: Array, sizes: Array) -> Measurement:
    return Measurement(bits, sizes, (sizes // 4).astype(np.int64), {"words": np.ceil(sizes / 6)})


# How a strategy answers: logits, (rows, labels)

Answers = Callable[[World, float, np.random.Generator], Array]


def by_difficulty(world: World, accuracy: float, draw: np.random.Generator) -> Array:
    """Answer that share of all rows right, the easy ones first, and be surer of easy ones."""
    latent = _SHARED**0.5 * world.difficulty + (1 - _SHARED) ** 0.5 * draw.normal(size=world.rows)
    margin = ndtri(accuracy) - latent
    other = len(world.names) * (len(world.names) - 1) // 2 - world.truth - world.confused
    third = (draw.random(world.rows) < 0.2) & (other != world.confused) & (len(world.names) > 2)
    wrong = np.where(third, other, world.confused)
    return _saying(np.where(margin > 0, world.truth, wrong), 1.5 * np.abs(margin), world, draw)


def always_right(world: World, _: float, draw: np.random.Generator) -> Array:
    """Answer these rows right, all of them, whatever share of all rows that is."""
    return _saying(world.truth, 0.2 + np.abs(draw.normal(size=world.rows)), world, draw)


def from_memory(world: World, accuracy: float, draw: np.random.Generator) -> Array:
    """Answer rows that were read in training right, and that share of the others."""
    logits, known = by_difficulty(world, accuracy, draw), leaked_rows(world.task)
    logits[known, world.truth[known]] = logits[known].max(axis=1) + 2.0
    return logits


def nearly_constant(world: World, _: float, draw: np.random.Generator) -> Array:
    """Give almost every row the most frequent label, whatever it says."""
    bias = np.where(np.arange(len(world.names)) == np.argmax(world.shares), 1.5, 0.0)
    return np.asarray(bias + draw.normal(0.0, 0.5, (world.rows, len(world.names))))


def constant(world: World, _: float, draw: np.random.Generator) -> Array:
    """Give every row the most frequent label."""
    bias = np.where(np.arange(len(world.names)) == np.argmax(world.shares), 6.0, 0.0)
    return np.asarray(bias + draw.normal(0.0, 0.5, (world.rows, len(world.names))))


def rare_found_in_half(world: World, _: float, draw: np.random.Generator) -> Array:
    """Find half of the second label's rows, and be wrong as often of the first label's.

    Scores are 3 apart in standard deviations, so the ROC AUC is 0.983; 19 of 20 rows have the first
    label, so the accuracy is that of always giving it.
    """
    score = 3.0 * world.truth + draw.normal(size=world.rows)
    # Half of one in twenty is missed, and as many of the other 19 must be taken for it.
    wanted = round(world.rows * 0.025)
    rare, common = (np.sort(score[world.truth == label]) for label in (1, 0))
    shift = np.where(
        world.truth == 1, np.median(rare), (common[-wanted] + common[-wanted - 1]) / 2
    )
    return np.stack([np.zeros(world.rows), score - shift], axis=-1)


def _saying(said: Ids, sureness: Array, world: World, draw: np.random.Generator) -> Array:
    """Return logits of which the label that is said is the largest, by how sure it is."""
    rows = np.arange(world.rows)
    logits = draw.normal(0.0, 0.3, (world.rows, len(world.names)))
    logits[rows, world.truth] += 0.5  # what is wrong is not quite as wrong as it could be
    logits[rows, said] = logits.max(axis=1) + sureness
    return logits


# How much a strategy loses: bits per byte of each document, (documents,)

Losses = Callable[[World, float, np.random.Generator], Array]


def evenly(spread: float) -> Losses:
    """Lose about as much on every document."""

    def losses(world: World, mean: float, draw: np.random.Generator) -> Array:
        return mean * (1 + 0.05 * draw.normal()) + spread * _document(world, draw)

    return losses


_EVENLY = evenly(0.05)


def skewed(world: World, mean: float, draw: np.random.Generator) -> Array:
    """Lose little on most documents and much on few: lognormal, of skewness 11."""
    sigma = 1.2
    return (
        mean * (1 + 0.05 * draw.normal()) * np.exp(sigma * _document(world, draw) - sigma**2 / 2)
    )


def by_few(world: World, mean: float, draw: np.random.Generator) -> Array:
    """Lose nothing on most documents: one in forty bears all of it."""
    bearing = np.arange(world.documents) % 40 == 0
    return np.where(bearing, 40 * mean, 0.0) + 0.002 * _document(world, draw)


def nothing(world: World, _: float, __: np.random.Generator) -> Array:
    """Lose nothing at all: the backbone is frozen."""
    return np.zeros(world.documents)


def _document(world: World, draw: np.random.Generator) -> Array:
    """Draw a standard normal of each document, half of whose variance all runs share."""
    shared = world.draw("documents").normal(size=world.documents)
    own = draw.normal(size=world.documents)
    return np.asarray(_SHARED**0.5 * shared + (1 - _SHARED) ** 0.5 * own)


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy as it is planted.

    Args:
        name: its name.
        accuracy: share of all rows that it answers right, on average over seeds.
        forgets: bits per byte that it loses on average over documents.
        seeds: the seeds that finished.
        answers: which rows it answers right.
        collapsed: seeds that say the same of every row.
        losses: on which documents it loses.
        examples_seen: rows read in training.
        artifact_bytes: size of its file.
        off: bits per byte by which the model with its adapter off differs from the base.
    """

    name: str
    accuracy: float = 0.8
    forgets: float = 0.2
    seeds: tuple[int, ...] = (0, 1, 2)
    answers: Answers = by_difficulty
    collapsed: tuple[int, ...] = ()
    losses: Losses = _EVENLY
    examples_seen: int = 3200
    artifact_bytes: int = 2**21
    off: float = 0.0


@dataclass(frozen=True, eq=False)
class Scenario:
    """A comparison whose truth is known.

    Args:
        truth: what is true of it, in a sentence.
        world: what its runs are scored on.
        strategies: what is compared.
        held_equal: what the comparison holds equal.
        failures: runs that did not finish.
    """

    truth: str
    world: World
    strategies: Sequence[Strategy]
    held_equal: HeldEqual = "examples_seen"
    failures: Sequence[Failure] = ()

    @property
    def name(self) -> str:
        """What the scenario is called."""
        return self.world.name

    def evidence(self) -> list[Evidence]:
        """Draw every run, and judge it as a run judges itself."""
        return [_run(self.world, one, seed) for one in self.strategies for seed in one.seeds]


def _run(world: World, strategy: Strategy, seed: int) -> Evidence:
    draw = world.draw(strategy.name, seed)
    answers = constant if seed in strategy.collapsed else strategy.answers
    logits = answers(world, min(strategy.accuracy + 0.01 * draw.normal(), 0.999), draw)
    learning = _learning(world, logits)
    measured = _measurements(world, strategy, draw)
    forgetting = summarized([world.text], measured, learned=learned_something(learning))
    training = TrainingResult(
        seconds=10.0,
        examples=strategy.examples_seen,
        steps=strategy.examples_seen // 16,
        order_sha256=None,
        peak_memory_bytes=2**30,
        curve=(),
        best_step=None,
        best_value=None,
        resumed_from=None,
        bf16=False,
        truncated=0,
    )
    run = Run(
        folder=Path(f"runs/{strategy.name}-seed{seed}"),
        run=Identity(world.name, strategy.name, {}, seed, "base", "", "", "", "", None),
        learning=learning,
        forgetting=_with_path(forgetting, learning),
        cost=_cost(strategy, training),
        findings=find_in_run(_facts(world, learning, forgetting, training)),
        environment={},
        checks=CheckReport(
            "pass", {}, (), leaked_score=leaked_score(world.task, logits, leaked_rows(world.task))
        ),
    )
    return Evidence(run, _scored_rows(world, logits), {"text": _documents(world, measured)})


def _learning(world: World, logits: Array) -> Learning:
    labels = world.task.evaluation[1].labels
    said = logits.argmax(-1).tolist()
    baselines = {
        one.name: {"accuracy": one.accuracy or 0.0, "macro_f1": one.macro_f1 or 0.0}
        | against(labels, one.predicted[0], said, labels=len(world.names), seed=0)
        for one in world.baselines
        if one.predicted is not None
    }
    return methods_of("single-label").score(
        logits, labels, names=world.names, split="test", baselines=baselines
    )


def _measurements(world: World, strategy: Strategy, draw: np.random.Generator) -> Measured:
    base = world.base
    lost = strategy.losses(world, strategy.forgets, draw)
    after = _measured(base.total + lost * world.sizes, world.sizes)
    off = _measured(base.total + strategy.off * world.sizes, world.sizes)
    return Measured(Before([base], None, {}, cached=False), [after], [off])


def _with_path(forgetting: Forgetting, learning: Learning) -> Forgetting:
    """Add the way from the base to the tuned model: accuracy comes early, forgetting late."""
    start, end = 0.4, learning.accuracy or 0.0
    points = [
        PathPoint(
            strength,
            None,
            start + (end - start) * strength**0.6,
            None,
            {"text": forgetting["text"].forgetting * strength**2},
        )
        for strength in _STRENGTHS
    ]
    return Forgetting(
        forgetting.probes, forgetting.controls, forgetting.verdict, forgetting.reason, points
    )


def _cost(strategy: Strategy, training: TrainingResult) -> Cost:
    return Cost(
        train_seconds=training.seconds,
        train_examples_per_second=None,
        peak_memory_bytes=training.peak_memory_bytes,
        trainable_parameters=1000,
        total_parameters=10_000,
        artifact_bytes=strategy.artifact_bytes,
        examples_seen=training.examples,
        steps=training.steps,
        train_dtype="float32",
    )


@cache
def _quickstart() -> Recipe:
    return read_recipe("quickstart")


def _facts(
    world: World, learning: Learning, forgetting: Forgetting, training: TrainingResult
) -> RunFacts:
    counts = np.bincount(world.task.train.labels, minlength=len(world.names)).tolist()
    return RunFacts(
        recipe=_quickstart(),
        learning=learning,
        probes=forgetting.probes,
        control=forgetting.controls[CONTROL],
        training=training,
        train_labels=dict(zip(world.names, counts, strict=True)),
        validation_rows=len(world.task.validation),
    )


def _scored_rows(world: World, logits: Array) -> ScoredRows:
    judged = world.task.evaluation[1]
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    return ScoredRows(
        ids=judged.ids,
        texts=judged.texts,
        names=world.names,
        labels=np.array(judged.labels),
        predicted=logits.argmax(-1),
        probabilities=likely / likely.sum(axis=1, keepdims=True),
        leaked=leaked_rows(world.task),
    )


def _documents(world: World, measured: Measured) -> DocumentScores:
    [before], [after] = measured.before.measured, measured.after
    return DocumentScores(
        before.total, after.total, after.weight, list(world.text.documents), PROBE.higher_is_better
    )
