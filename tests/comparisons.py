"""Evidence of runs that were never run: rows right and wrong, documents and paths as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peftune.baselines.baseline import Baseline, scored_baseline
from peftune.data.rows import Rows
from peftune.experiments.report import Cost, Forgetting, Identity, PathPoint, Run
from peftune.experiments.run_evidence import DocumentScores, Evidence, ScoredRows
from peftune.findings import CheckReport
from peftune.forgetting.results import ProbeResult
from peftune.tasks.scores import Learning

MAJORITY = 0.4


def evidence(
    strategy: str,
    seed: int,
    right: NDArray[np.float64],
    *,
    lost: NDArray[np.float64] | None = None,
    path: Sequence[tuple[float, float]] = (),
    artifact_bytes: int = 2**20,
    examples_seen: int = 3200,
    train_seconds: float | None = 10.0,
    higher_is_better: bool = False,
    leaked: NDArray[np.bool_] | None = None,
    path_without_leaked: Sequence[float] = (),
) -> Evidence:
    """Build a finished run.

    Args:
        strategy: its name.
        seed: its seed.
        right: 1 for each row that was answered right, else 0.
        lost: bits per byte lost on each document, which are of unlike length; None for no probe.
        path: accuracy and forgetting from the base to the tuned model.
        artifact_bytes: size of the artifact.
        examples_seen: rows read in training.
        train_seconds: None for a resumed run.
        higher_is_better: whether the probe's value is one to have much of.
        leaked: which rows were read in training; None for none.
        path_without_leaked: accuracy of each point of the path without them; empty in a run of
            an earlier version.
    """
    documents = {} if lost is None else {"text": _documents(lost, higher_is_better)}
    return Evidence(
        run=Run(
            folder=Path(f"runs/{strategy}-seed{seed}"),
            run=Identity("test", strategy, {}, seed, "base", "", "", "", "", None),
            learning=_learning(right),
            forgetting=_forgetting(documents, path, path_without_leaked),
            cost=Cost(
                train_seconds=train_seconds,
                train_examples_per_second=None,
                peak_memory_bytes=2**30,
                trainable_parameters=1000,
                total_parameters=10_000,
                artifact_bytes=artifact_bytes,
                examples_seen=examples_seen,
                steps=examples_seen // 16,
                train_dtype="float32",
            ),
            findings=(),
            environment={},
            checks=CheckReport("pass", {}, ()),
        ),
        rows=_rows(right, leaked),
        documents=documents,
    )


def baseline(
    name: str, title: str, right: NDArray[np.float64], *, rows: Sequence[int] | None = None
) -> Baseline:
    """Measure a baseline on the rows of `evidence`.

    Args:
        name: its name.
        title: how tables call it.
        right: share of its choices that answer each row right, a multiple of 1/3, (rows,).
        rows: numbers of the rows that it was asked about; None for all.
    """
    asked = list(range(len(right))) if rows is None else list(rows)
    labels, shares = labels_of(len(right))[asked], np.round(right[asked] * 3)
    choices = [np.where(shares > choice, labels, (labels + 1) % 3).tolist() for choice in range(3)]
    return scored_baseline(
        name,
        title=title,
        evaluation=Rows(
            [str(row) for row in asked], ["a text"] * len(asked), tuple(labels.tolist())
        ),
        predicted=choices if ((shares > 0) & (shares < 3)).any() else choices[:1],
        labels=3,
        seconds=0.0,
    )


def labels_of(rows: int) -> NDArray[np.int64]:
    """Label two rows in five "bad", two "good" and one "mixed"."""
    return np.resize(np.array([0, 1, 2, 0, 1], dtype=np.int64), rows)


def _rows(right: NDArray[np.float64], leaked: NDArray[np.bool_] | None) -> ScoredRows:
    """Answer rows; a wrong answer is the next label."""
    labels = labels_of(len(right))
    predicted = np.where(right > 0, labels, (labels + 1) % 3)
    return ScoredRows(
        ids=[str(row) for row in range(len(right))],
        texts=["a text"] * len(right),
        names=("bad", "good", "mixed"),
        labels=labels,
        predicted=predicted,
        probabilities=0.7 * np.eye(3)[predicted] + 0.1,
        leaked=np.zeros(len(right), dtype=np.bool_) if leaked is None else leaked,
    )


def _documents(lost: NDArray[np.float64], higher_is_better: bool) -> DocumentScores:
    weight = np.resize([100.0, 200.0, 300.0], len(lost)).astype(np.float64)
    worse = -lost if higher_is_better else lost
    return DocumentScores(
        before=weight,
        after=weight * (1 + worse),
        weight=weight,
        excerpts=["…"] * len(lost),
        higher_is_better=higher_is_better,
    )


def _learning(right: NDArray[np.float64]) -> Learning:
    accuracy = float(right.mean())
    margin = 1.96 * float(right.std()) / len(right) ** 0.5
    return Learning(
        split="test",
        n=len(right),
        accuracy=accuracy,
        macro_f1=accuracy,
        loss=1.0,
        metrics={},
        ci95={"accuracy": (accuracy - margin, accuracy + margin)},
        per_label={},
        confusion=(),
        baselines={"majority": {"accuracy": MAJORITY}},
    )


def _forgetting(
    documents: Mapping[str, DocumentScores],
    path: Sequence[tuple[float, float]],
    without: Sequence[float],
) -> Forgetting:
    strengths = np.linspace(0, 1, len(path)) if path else ()
    kept: Sequence[float | None] = without or [None] * len(path)
    points = [
        PathPoint(float(strength), None, accuracy, accuracy, {"text": lost}, clean)
        for strength, (accuracy, lost), clean in zip(strengths, path, kept, strict=True)
    ]
    probes = [_probe(name, scores) for name, scores in documents.items()]
    return Forgetting(probes, {"adapter_off_forgetting": 0.0}, None, "not asked for", points)


def _probe(name: str, scores: DocumentScores) -> ProbeResult:
    before, after = (
        float(total.sum() / scores.weight.sum()) for total in (scores.before, scores.after)
    )
    return ProbeResult(
        name=name,
        type="lm-loss",
        metric="bits_per_byte",
        unit="bits/byte",
        higher_is_better=scores.higher_is_better,
        before=before,
        after=after,
        forgetting=before - after if scores.higher_is_better else after - before,
        ci95=None,
        ci90=None,
        margin=None,
        verdict=None,
        power=None,
        kl=None,
        kl_ci95=None,
        mcnemar=None,
        heads=None,
        quantization=None,
        details={},
        n_documents=len(scores.weight),
        n_tokens=0,
        data_sha256="",
        protocol={},
        reason="not asked for",
    )
