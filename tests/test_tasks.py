"""Tasks of several labels, of numbers and of text pairs: read, trained, scored, saved and said."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from kinds import STRATEGIES, TRAINING
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional
from transformers import pipeline
from transformers.trainer_pt_utils import LabelSmoother
from typer.testing import CliRunner

import peftune
from peftune.baselines.simple import baseline_scores
from peftune.cli.main import app
from peftune.data.labels import read_labels
from peftune.data.rows import Rows
from peftune.data.split_tables import SplitTable
from peftune.data.tables import read_file
from peftune.data.task_data import Task, load_task, read_labeled
from peftune.data.text_column import TextColumns, texts_of
from peftune.errors import DataError, TrainingError, UsageError
from peftune.experiments import Run
from peftune.models.architecture import head_of, unwrapped
from peftune.models.prepare import prepare_model
from peftune.recipe.schema import DataSection, ModelSection, TaskName
from peftune.recipe.task_type import MULTI_LABEL
from peftune.recipe.training import TrainingSection
from peftune.tasks import methods_of
from peftune.tasks.base import ClassLoss, class_weights, scaled, weights_of
from peftune.tasks.multi_label import best_thresholds
from peftune.tasks.scores import learned_something
from peftune.testing.tuned import GradientsBeforeTheStep
from peftune.training.train import train

NAN = math.nan
TAGS = ("urgent", "billing", "praise")
CELLS = np.array([[1, 0, 1], [0, 0, NAN], [1, 1, 0], [0, 1, NAN], [1, 0, 0]])
LOGITS = np.array([[2, -1, -3], [-1, -2, 5], [-1, 1, -1], [-2, 2, 1], [3, 0.5, -2.0]])


# Scores


def test_the_scores_of_several_labels_count_the_known_cells_alone() -> None:
    """By hand: said are 1 0 0 / 0 0 . / 0 1 0 / 0 1 . / 1 1 0; the dots are not known."""
    metrics = methods_of("multi-label").metrics(LOGITS, CELLS)

    f1 = [2 * 2 / (3 + 2), 2 * 2 / (2 + 3), 0.0]
    assert metrics["accuracy"] == 2 / 5
    assert metrics["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert metrics["micro_f1"] == pytest.approx(2 * 4 / (6 + 5))
    assert metrics["weighted_f1"] == pytest.approx((3 * f1[0] + 2 * f1[1] + 1 * f1[2]) / 6)
    known = ~np.isnan(CELLS)
    losses = functional.binary_cross_entropy_with_logits(
        torch.tensor(LOGITS[known]), torch.tensor(CELLS[known])
    )
    assert metrics["log_loss"] == pytest.approx(float(losses))


def test_the_scores_of_several_labels_are_those_of_scikit_learn_where_all_are_known() -> None:
    """An independent implementation, on random cells."""
    generator = np.random.default_rng(0)
    cells, logits = generator.integers(0, 2, (50, 4)), generator.normal(size=(50, 4))

    metrics = methods_of("multi-label").metrics(logits, cells.astype(float))

    for average in ("macro", "micro", "weighted"):
        assert metrics[f"{average}_f1"] == pytest.approx(
            f1_score(cells, logits >= 0, average=average)
        )
    assert metrics["accuracy"] == ((logits >= 0) == cells).all(axis=1).mean()


def test_a_label_with_one_value_has_no_area_and_the_report_names_it() -> None:
    """The area is a mean over the labels that have both values."""
    cells = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, NAN]])

    learning = methods_of("multi-label").score(
        LOGITS[:3, :2], tuple(map(tuple, cells)), names=("a", "b"), split="test",

    )  # fmt: skip

    assert learning.metrics["roc_auc"] == 0.75  # 2 is above -1, and -1 is level with it: half
    assert "roc_auc" not in learning.per_label["b"]
    assert learning.reason == (
        "ci95: macro_f1 takes 5 rows of every label: a has 2, b has 2; "
        "roc_auc: b has only one value in this split"
    )
    assert learning.confusion is None


def test_the_interval_of_the_f1_holds_it_and_shrinks_with_rows() -> None:
    """Twenty times the rows make it narrower by about the root of twenty."""
    small = _judged_cells(40)
    large = _judged_cells(800)

    for learning in (small, large):
        low, high = learning.ci95["macro_f1"] or (1.0, 0.0)
        assert learning.macro_f1 is not None
        assert low < learning.macro_f1 < high
    assert 3 < _width(small) / _width(large) < 6.5


def _judged_cells(rows: int) -> Any:  # noqa: ANN401 - Learning
    generator = np.random.default_rng(1)
    cells = generator.integers(0, 2, (rows, 2)).astype(float)
    logits = cells * 2 - 1 + generator.normal(size=(rows, 2)) * 1.5
    return methods_of("multi-label").score(
        logits,
        tuple(map(tuple, cells)),
        names=("a", "b"),
        split="test",
    )


def _width(learning: Any) -> float:  # noqa: ANN401 - Learning
    low, high = learning.ci95["macro_f1"]
    return float(high - low)


def test_thresholds_from_validation_rows_are_those_of_the_best_f1() -> None:
    """No other threshold between two probabilities says the label better; nor is one 0 or 1."""
    generator = np.random.default_rng(2)
    cells = (generator.random((60, 2)) < 0.2).astype(float)
    cells[:5, 1] = NAN
    logits = cells * 1.5 - 2 + generator.normal(size=(60, 2))
    logits = np.nan_to_num(logits)

    found = best_thresholds(logits, tuple(map(tuple, cells)))

    assert found != (0.5, 0.5)
    for column, threshold in enumerate(found):
        known = ~np.isnan(cells[:, column])
        truth = cells[known, column] == 1
        probabilities = 1 / (1 + np.exp(-logits[known, column]))
        best = max(f1_score(truth, probabilities >= at) for at in probabilities)
        assert 0 < threshold < 1
        assert f1_score(truth, probabilities >= threshold) == pytest.approx(best)


def test_the_scores_of_numbers_are_those_worked_out_by_hand() -> None:
    """Errors 1, 0, -1 and 2: squares 6, absolutes 4; the variance of 1 2 3 6 is 3.5."""
    metrics = methods_of("regression").metrics(
        np.array([[2.0], [2.0], [2.0], [8.0]]), np.array([1, 2, 3, 6.0])
    )

    assert metrics["mse"] == 6 / 4
    assert metrics["mae"] == 4 / 4
    assert metrics["r2"] == pytest.approx(1 - 1.5 / 3.5)
    assert metrics["pearson"] == pytest.approx(
        float(np.corrcoef([2, 2, 2, 8], [1, 2, 3, 6])[0, 1])
    )
    assert metrics["spearman"] == pytest.approx(math.sqrt(3 / 5))  # ranks 2 2 2 4 and 1 2 3 4


def test_a_correlation_that_does_not_exist_is_null_with_its_reason() -> None:
    """A model that says the same number for every row correlates with nothing."""
    learning = methods_of("regression").score(
        np.ones((3, 1)), (1.0, 2.0, 3.0), names=("score",), split="test"
    )

    assert (learning.accuracy, learning.macro_f1) == (None, None)
    assert learning.metrics["pearson"] is None
    assert learning.ci95["pearson"] is None
    assert learning.reason == (
        "accuracy, macro_f1: a regression has no labels; "
        "pearson, spearman: all rows or all outputs are the same number"
    )


@pytest.mark.parametrize(
    ("signal", "noise", "metric", "learned"),
    [
        (1.0, 0.1, "mse", True),
        (1.0, 0.1, "mae", True),
        (0.0, 1.0, "mse", False),
        (0.0, 1.0, "spearman", False),
        (0.0, 0.0, "mse", False),
        (0.0, 0.0, "pearson", False),
        (5.0, 5.0, "mse", False),
        (5.0, 5.0, "pearson", True),
    ],
)
def test_numbers_are_learned_where_they_are_said_better_than_by_their_mean(
    signal: float, noise: float, metric: str, learned: bool
) -> None:
    """By the errors against those of the best constant, or by a correlation against 0.

    The last is five times too large, so that its squared error is far above the mean's, and still
    follows the truth.
    """
    generator = np.random.default_rng(3)
    truth = generator.normal(size=100)
    said = signal * truth + generator.normal(size=100) * noise

    learning = methods_of("regression").score(
        said[:, None], tuple(truth), names=("score",), split="test",
        metric=metric,
    )  # fmt: skip

    assert learned_something(learning) is learned


def tagged(
    *, share: float, told: float, shift: float, rows: int = 300, seed: int = 0
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Make logits of three rare labels: `told` of what the label is, and moved by `shift`.

    A loss with balanced weights moves every logit by the logarithm of how rare the label is.
    """
    generator = np.random.default_rng(seed)
    cells = (generator.random((rows, 3)) < share).astype(np.float64)
    logits = told * (cells - share) + generator.normal(size=(rows, 3))
    return logits + math.log(share / (1 - share)) + shift, cells


@pytest.mark.parametrize(
    ("told", "shift", "metric", "learned"),
    [
        *((1.0, 0.0, metric, True) for metric in ("log_loss", "roc_auc")),
        *((1.0, 0.0, metric, False) for metric in ("macro_f1", "micro_f1")),
        *((1.0, 2.0, metric, True) for metric in ("macro_f1", "weighted_f1", "roc_auc")),
        (1.0, 2.0, "log_loss", False),
        *((0.0, 2.0, metric, False) for metric in MULTI_LABEL.metrics),
        *((0.0, 0.0, metric, False) for metric in MULTI_LABEL.metrics),
    ],
)
def test_several_labels_are_learned_whatever_the_weights_of_the_loss(
    told: float, shift: float, metric: str, learned: bool
) -> None:
    """Weights lift every probability: the loss is worse than that of saying how rare a label is.

    Macro F1 and ROC AUC say what was learned all the same, and say nothing of noise. Without weights
    rare labels are seldom said: to say every label of every row has a higher F1.
    """
    logits, cells = tagged(share=0.12, told=told, shift=shift)
    share = float(cells.mean())
    naive = -(share * math.log(share) + (1 - share) * math.log(1 - share))

    learning = methods_of("multi-label").score(
        logits, tuple(map(tuple, cells)), names=TAGS, split="test",
        metric=metric,
    )  # fmt: skip

    assert (learning.loss > naive) is (shift > 0 or told == 0)
    assert learned_something(learning) is learned


def test_giving_every_label_to_every_row_is_a_baseline() -> None:
    """F1 2p / (1 + p) of each label, over the known cells alone: of 3 in 5, 2 in 5 and 1 in 3."""
    task = Task(
        TAGS, *(Rows(["0"] * 5, ["a b", "b", "c", "a", "d"], tuple(map(tuple, CELLS))),) * 3, {}, "multi-label"
    )  # fmt: skip

    scores = baseline_scores(task, task.validation)["every_label"]

    assert scores == {"macro_f1": pytest.approx((6 / 8 + 4 / 7 + 2 / 4) / 3)}


# Losses


def test_balanced_weights_make_every_class_count_the_same() -> None:
    """Six rows of one class and two of the other weigh 4 in all; a class without rows is left out."""
    weights = class_weights((0,) * 6 + (2,) * 2, 3)

    assert weights.tolist() == pytest.approx([8 / 12, 0.0, 8 / 4])
    assert 6 * weights[0] == pytest.approx(float(2 * weights[2]))


def test_weights_by_name_say_how_much_a_label_counts_beside_another() -> None:
    """On average over the rows they are 1: six of weight 2, two of weight 6, times 8 / (12 + 12)."""
    names, weights = ("common", "none", "rare"), {"rare": 6.0, "common": 2.0}
    given = weights_of(weights, names)
    labels = (0,) * 6 + (2,) * 2
    loss = methods_of("single-label").loss(labels, names=names, weights=weights)
    assert loss is not None
    logits, ids = (
        torch.randn(8, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor(labels),
    )

    assert given == (2.0, 1.0, 6.0)
    assert scaled(given, labels).tolist() == pytest.approx([2 / 3, 1 / 3, 2.0])
    # Over all rows it is torch's own mean, which divides by the sum of the weights.
    expected = functional.cross_entropy(logits, ids, weight=torch.tensor(given))
    torch.testing.assert_close(loss({"logits": logits}, ids), expected)


def test_weights_by_name_are_the_pos_weight_of_several_labels() -> None:
    """They weigh the positive cells as `BCEWithLogitsLoss(pos_weight=…)` does; labels not named 1."""
    cells = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    loss = methods_of("multi-label").loss(
        tuple(map(tuple, cells)), names=("x", "y"), weights={"y": 5.0}
    )
    assert loss is not None
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.1], [-0.4, 0.0]])

    expected = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 5.0]))(
        logits, torch.tensor(cells)
    )
    assert float(loss({"logits": logits}, torch.tensor(cells))) == pytest.approx(float(expected))


@pytest.mark.parametrize("weights", [None, (1.0, 4.0, 2.0)])
def test_smoothed_labels_are_those_of_torch_and_of_transformers(
    weights: tuple[float, ...] | None,
) -> None:
    """With weights as `CrossEntropyLoss` has them, without as Trainer's own `LabelSmoother`."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, generator=generator)
    ids = torch.arange(12) % 3  # as many rows of each, so that torch divides by 12 times the mean
    loss = methods_of("single-label").loss(
        tuple(ids.tolist()),
        names=TAGS,
        weights=None if weights is None else dict(zip(TAGS, weights, strict=True)),
        smoothing=0.3,
    )
    assert isinstance(loss, ClassLoss)

    found = loss({"logits": logits}, ids)

    torch.testing.assert_close(
        found,
        functional.cross_entropy(
            logits,
            ids,
            weight=None if weights is None else torch.tensor(weights),
            label_smoothing=0.3,
        ),
    )
    if weights is None:
        torch.testing.assert_close(found, LabelSmoother(epsilon=0.3)({"logits": logits}, ids))
        plain = functional.cross_entropy(logits, ids)
        torch.testing.assert_close(loss.unsmoothed()({"logits": logits}, ids), plain)


def test_a_label_that_is_not_known_has_no_loss_and_no_gradient() -> None:
    """The mean is over the known cells; what the model says of the others does not matter."""
    loss = methods_of("multi-label").loss(tuple(map(tuple, CELLS)), names=TAGS, weights=None)
    assert loss is not None
    logits = torch.tensor(LOGITS, requires_grad=True)
    cells = torch.tensor(np.nan_to_num(CELLS, nan=-100.0))

    value = loss({"logits": logits}, cells)
    value.backward()

    assert value.item() == pytest.approx(
        methods_of("multi-label").metrics(LOGITS, CELLS)["log_loss"]
    )
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, torch.tensor(np.isnan(CELLS)))


def test_a_plain_task_keeps_the_loss_of_transformers() -> None:
    """Only weights, or labels that are not known, ask for another."""
    assert methods_of("single-label").loss((0, 1), names=("a", "b"), weights=None) is None
    assert methods_of("regression").loss((0.5, 1.0), names=("a",), weights=None) is None


# Whole runs


def _write_tickets(path: Path, count: int = 48) -> Path:
    """Write rows with three labels of 0 and 1, a number and two texts; some labels are not known."""
    words = ("late", "invoice", "thanks", "please", "again")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "body", *TAGS, "score", "label"])
        for i in range(count):
            cells = [
                "1" if i % 3 == 0 else "0",
                "" if i % 8 == 5 else str(i % 2),
                str(int(i % 5 == 2)),
            ]
            body = f"{words[i % 5]} {words[i * 3 % 5]} {i * 37}"
            writer.writerow([f"t{i}", words[i % 5], body, *cells, f"{i % 7 / 2}", "ab"[i % 2]])
    return path


DATA: dict[str, dict[str, Any]] = {
    "multi-label": {"text_column": "body", "label_column": TAGS},
    "regression": {"text_column": "body", "label_column": "score"},
    "pair": {"text_column": "title", "text_pair_column": "body"},
}


def _recipe(folder: Path, base: Path, kind: str, strategy: str, **training: Any) -> peftune.Recipe:  # noqa: ANN401 - TrainingSection's
    task: TaskName = "single-label" if kind == "pair" else kind  # type: ignore[assignment]
    rows = _write_tickets(folder / "tickets.csv")
    return peftune.Recipe(
        version=1,
        name=kind,
        task=task,
        model=ModelSection(name_or_path=str(base), max_length=24),
        data=DataSection(train_file=str(rows), **DATA[kind]),
        strategy=STRATEGIES[strategy],
        training=TRAINING.model_copy(update=training),
        output_dir=str(folder / f"{kind}-{strategy}"),
    )


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Run]:
    """Give a run of every kind by every strategy."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        (kind, strategy): peftune.run(_recipe(folder, base, kind, strategy))
        for kind in DATA
        for strategy in STRATEGIES
    }


@pytest.mark.costly
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", DATA)
def test_every_strategy_learns_every_kind_and_says_the_same_when_loaded(
    kind: str, strategy: str, base: Path, runs: dict[tuple[str, str], Run]
) -> None:
    """What the loaded artifact says of the scored rows is what the run wrote of them."""
    run = runs[kind, strategy]
    lines = _lines(run.folder / "predictions.jsonl")
    texts = [line["text"] for line in _lines(run.folder / "texts.jsonl")]

    classifier = peftune.load(run.artifact, base=str(base), use_cpu=True)
    said = classifier.predict(texts)

    assert classifier.task == run.learning.task == ("single-label" if kind == "pair" else kind)
    assert len(lines) == run.learning.n == len(said)
    for line, prediction in zip(lines, said, strict=True):
        if kind == "regression":
            assert line["predicted"] == pytest.approx(prediction.score, abs=1e-4)
            assert prediction.label == "score"
        elif kind == "multi-label":
            assert prediction.labels == tuple(
                tag for tag in TAGS if prediction.probabilities[tag] >= 0.5
            )
            assert line["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=1e-4)
            assert set(line["label"]).isdisjoint(line["not_known"])
        else:
            assert line["predicted"] == prediction.label
    assert (run.folder / "README.md").exists() is False
    assert (run.artifact / "README.md").read_text(encoding="utf-8").count("---") >= 2


def test_the_scores_of_a_run_are_those_of_its_predictions(
    runs: dict[tuple[str, str], Run],
) -> None:
    """Counted again from `predictions.jsonl`, with the labels that the file has."""
    run = runs["multi-label", "lora"]
    lines = _lines(run.folder / "predictions.jsonl")

    right = [
        {*line["label"]} - {*line["not_known"]} == {*line["predicted"]} - {*line["not_known"]}
        for line in lines
    ]
    assert run.learning.accuracy == sum(right) / len(right)

    numbers = _lines(runs["regression", "full"].folder / "predictions.jsonl")
    errors = [(line["label"] - line["predicted"]) ** 2 for line in numbers]
    assert runs["regression", "full"].learning.metrics["mse"] == pytest.approx(
        sum(errors) / len(errors)
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("kind", DATA)
def test_a_file_is_scored_by_the_columns_that_were_learned_from(
    kind: str, base: Path, runs: dict[tuple[str, str], Run], tmp_path: Path
) -> None:
    """`evaluate` and `predict` need no column names: the manifest has them."""
    run = runs[kind, "lora"]
    rows = _write_tickets(tmp_path / "more.csv", 30)
    runner = CliRunner()

    scored = runner.invoke(app, ["evaluate", str(run.artifact), "--file", str(rows), "--base", str(base), "--json"])  # fmt: skip
    said = runner.invoke(app, ["predict", str(run.artifact), "--file", str(rows), "--base", str(base)])  # fmt: skip

    assert (scored.exit_code, said.exit_code) == (0, 0)
    assert json.loads(scored.stdout)["n"] == 30
    first = json.loads(said.stdout.splitlines()[0])
    assert first["text"] == ("late\nlate late 0" if kind == "pair" else "late late 0")
    assert ("labels" in first) is (kind == "multi-label")
    assert ("probabilities" in first) is (kind != "regression")


@pytest.mark.parametrize("kind", DATA)
def test_a_file_that_was_trained_on_is_known_again(
    kind: str, base: Path, runs: dict[tuple[str, str], Run], tmp_path: Path
) -> None:
    """Of every task type, by the texts as the columns make them; a file of other rows is not."""
    run = runs[kind, "lora"]
    others = tmp_path / "others.csv"
    lines = _write_tickets(tmp_path / "tickets.csv").read_text(encoding="utf-8").split("\n")
    unlike = [line.replace("late", "early").replace("again", "twice").replace("please", "kindly").replace("invoice", "bill").replace("thanks", "cheers") for line in lines]  # fmt: skip
    others.write_text("\n".join(unlike), encoding="utf-8")

    [found] = peftune.evaluate(run.artifact, tmp_path / "tickets.csv", base=str(base)).findings

    assert found.code == "seen-rows"
    assert found.message.startswith("Of the 48 rows of 'tickets.csv' ")
    assert peftune.evaluate(run.artifact, others, base=str(base)).findings == []


def test_a_pair_is_predicted_as_two_texts_or_as_the_one_that_they_make(
    base: Path, runs: dict[tuple[str, str], Run]
) -> None:
    """A tuple of two is joined as the training rows were."""
    classifier = peftune.load(runs["pair", "lora"].artifact, base=str(base), use_cpu=True)

    assert classifier.predict([("late", "again 7")]) == classifier.predict(["late\nagain 7"])
    with pytest.raises(UsageError, match="takes a list of strings"):
        classifier.predict([("a", "b", "c")])  # type: ignore[list-item]


def test_a_full_model_of_several_labels_opens_in_a_pipeline_of_transformers(
    runs: dict[tuple[str, str], Run],
) -> None:
    """The checkpoint says itself that its labels do not exclude each other."""
    run = runs["multi-label", "full"]
    classify: Any = pipeline("text-classification", str(run.artifact), top_k=None, device="cpu")
    [said] = classify(["late 3"])
    ours = peftune.load(run.artifact, use_cpu=True).predict(["late 3"])[0]

    assert {one["label"]: one["score"] for one in said} == pytest.approx(
        dict(ours.probabilities), abs=1e-5
    )


def test_thresholds_that_validation_rows_chose_are_saved_and_used(
    base: Path, tmp_path: Path
) -> None:
    """The artifact says a label from the probability that the run chose."""
    run = peftune.run(_recipe(tmp_path, base, "multi-label", "lora", label_threshold="validation"))
    chosen = [scores["threshold"] for scores in run.learning.per_label.values()]
    classifier = peftune.load(run.artifact, base=str(base), use_cpu=True)
    prediction = classifier.predict(["thanks again 5"])[0]

    assert classifier.manifest is not None
    assert classifier.manifest.label_thresholds == chosen != [0.5, 0.5, 0.5]
    assert prediction.labels == tuple(
        tag for tag, limit in zip(TAGS, chosen, strict=True)
        if prediction.probabilities[tag] >= limit
    )  # fmt: skip


def test_every_kind_has_a_report_of_its_own(runs: dict[tuple[str, str], Run]) -> None:
    """The page and the table name the scores of the kind, and no accuracy that is none."""
    from peftune.experiments.run_evidence import read_evidence
    from peftune.reporting import write_reports

    for kind, told in (("multi-label", "Label by label"), ("regression", "Mean squared error")):
        folder = runs[kind, "lora"].folder
        written = write_reports(None, [read_evidence(folder)], (), folder)
        page = written.page.read_text(encoding="utf-8")
        assert told in page
        assert "lora reaches" in written.answer
        assert "None" not in written.markdown.read_text(encoding="utf-8")
    assert "Accuracy" not in page


def test_the_baselines_of_every_kind_are_scored_beside_the_model(
    runs: dict[tuple[str, str], Run],
) -> None:
    """What is said without reading, and what counting words says."""
    labels = runs["multi-label", "lora"].learning.baselines
    numbers = runs["regression", "lora"].learning.baselines

    assert {*labels} == {"majority", "tfidf_logistic_regression", "every_label"}
    assert labels["majority"]["macro_f1"] == 0.0  # no label has half of the rows
    assert {*numbers} == {"mean", "tfidf_ridge"}
    assert numbers["mean"]["loss"] == numbers["mean"]["mse"]


# Laws of training


def _gradients(
    task: Task, base: Path, folder: Path, section: TrainingSection, rows: int
) -> dict[str, torch.Tensor]:
    model = prepare_model(
        str(base),
        STRATEGIES["lora"],
        labels=task.labels,
        task=task.task_name,
        max_length=24,
        use_cpu=True,
    )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    copied = GradientsBeforeTheStep()
    split = section.model_copy(
        update={
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": 16 // rows,
            "max_steps": 1,
            "max_grad_norm": 1e9,
            "metric_for_best_model": "loss",
        }
    )
    train(model, task, split, checkpoints=folder / str(rows), run_identity="x", callbacks=[copied])
    return copied.gradients


@pytest.mark.costly
@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("multi-label", None),
        ("multi-label", "balanced"),
        ("multi-label", {"urgent": 4.0}),
        ("regression", None),
        ("pair", "balanced"),
        ("pair", {"b": 3.0}),
        ("smoothed pair", None),
        ("smoothed pair", {"a": 0.5, "b": 3.0}),
    ],
)
def test_a_step_does_not_depend_on_how_its_rows_are_split_into_batches(
    kind: str, weights: str | dict[str, float] | None, base: Path, tmp_path: Path
) -> None:
    """Sixteen rows at once, or four times four: rare labels and unknown cells among them."""
    recipe = _recipe(
        tmp_path,
        base,
        kind.removeprefix("smoothed "),
        "lora",
        class_weights=weights,
        label_smoothing_factor=0.2 if "smoothed" in kind else 0.0,
        weight_decay=0.0,
    )
    task = load_task(recipe.data.model_copy(update={"max_train_examples": 16}), recipe.task)

    whole = _gradients(task, base, tmp_path, recipe.training, 16)
    split = _gradients(task, base, tmp_path, recipe.training, 4)

    assert {*whole} == {*split}
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-6, rtol=1e-4)


def test_weights_change_what_a_rare_label_counts(base: Path, tmp_path: Path) -> None:
    """With `balanced` the gradient is another; without rare labels it would be the same."""
    found = []
    for weights in (None, "balanced"):
        recipe = _recipe(
            tmp_path, base, "multi-label", "lora", class_weights=weights, weight_decay=0.0
        )
        task = load_task(recipe.data.model_copy(update={"max_train_examples": 16}), recipe.task)
        folder = tmp_path / str(weights)
        found.append(_gradients(task, base, folder, recipe.training, 16))

    assert any(not torch.allclose(found[0][name], found[1][name]) for name in found[0])


def test_a_metric_that_is_not_defined_on_the_validation_rows_is_named(
    base: Path, tmp_path: Path
) -> None:
    """Rows of one label have no area under the curve, so no checkpoint can be chosen by it."""
    recipe = _recipe(
        tmp_path, base, "pair", "lora", learning_rate=1e-4, weight_decay=0.0, max_steps=1
    )
    task = load_task(recipe.data, recipe.task)
    one_label = [row for row, label in enumerate(task.validation.labels) if label == 0]
    task = dataclasses.replace(task, validation=task.validation.take(one_label))
    section = recipe.training.model_copy(update={"metric_for_best_model": "roc_auc"})
    model = prepare_model(
        str(base), STRATEGIES["lora"], labels=task.labels, max_length=24, use_cpu=True
    )

    with pytest.raises(TrainingError) as caught:
        train(model, task, section, checkpoints=tmp_path / "out", run_identity="x")

    assert str(caught.value) == (
        "training.metric_for_best_model: roc_auc is not defined on the validation rows: a label has "
        "no rows there, or all predictions are equal. Choose another metric, or hold out more rows."
    )


@pytest.mark.parametrize("weights", [None, {"b": 3.0}])
def test_the_loss_of_an_evaluation_is_that_of_the_labels_as_they_are(
    weights: dict[str, float] | None, base: Path, tmp_path: Path
) -> None:
    """Smoothing is in the loss that is learned from; what is told of held-out rows has none of it."""
    losses = {}
    for smoothing in (0.0, 0.4):
        recipe = _recipe(
            tmp_path,
            base,
            "pair",
            "lora",
            class_weights=weights,
            label_smoothing_factor=smoothing,
            learning_rate=1e-12,
            metric_for_best_model="mcc",
            weight_decay=0.0,
            logging_steps=1,
            max_steps=2,
        )
        task = load_task(recipe.data, recipe.task)
        model = prepare_model(
            str(base), STRATEGIES["lora"], labels=task.labels, max_length=24, use_cpu=True
        )
        with torch.no_grad():  # far from a guess, so that smoothing would be seen
            for weight in head_of(model).parameters():
                weight.mul_(40)
        folder = tmp_path / str(smoothing)
        result = train(model, task, recipe.training, checkpoints=folder, run_identity="x")
        losses[smoothing] = {
            name: value
            for point in result.curve
            for name, value in point.items()
            if "loss" in name
        }

    for name in ("validation_loss", "train_sample_loss"):
        assert losses[0.4][name] == pytest.approx(losses[0.0][name], rel=1e-5)
    assert abs(losses[0.4]["train_loss"] - losses[0.0]["train_loss"]) > 0.01


# Reading


@pytest.mark.parametrize(
    ("columns", "first", "second"),
    [
        (TextColumns("body"), "it rains", ""),
        (TextColumns(("title", "body")), "Rain\nit rains", "Sun"),
        (TextColumns("title", text_pair_column="body"), "Rain\nit rains", ""),
        (TextColumns(template="{title}: {body} {{{tag}}}"), "Rain: it rains {NA}", "Sun:  {}"),
    ],
)
def test_a_text_is_made_of_the_columns_that_are_named(
    columns: TextColumns, first: str, second: str, tmp_path: Path
) -> None:
    """Blank parts are left out of joined columns; half a pair is not a text; cells keep characters."""
    path = tmp_path / "rows.csv"
    path.write_text("title,body,tag\nRain,it rains,NA\nSun,,\n", encoding="utf-8")
    table = SplitTable("train", "rows.csv", read_file(path), {})

    assert list(texts_of(table, columns)) == [first, second]


@pytest.mark.parametrize("template", ["no column", "{}", "{title", "{title!r}", "{title:>9}"])
def test_a_template_without_plain_columns_is_refused(template: str, tmp_path: Path) -> None:
    """It can name columns, and nothing that would run or format."""
    path = tmp_path / "rows.csv"
    path.write_text("title\nx\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"^data\.template"):
        texts_of(
            SplitTable("train", "rows.csv", read_file(path), {}), TextColumns(template=template)
        )


def test_lists_of_labels_are_read_by_name_or_id(tmp_path: Path) -> None:
    """JSON lists, also in a csv cell; an empty list says that none applies."""
    rows = [
        {"text": "a", "label": ["x", "z"]},
        {"text": "b", "label": []},
        {"text": "c", "label": ["y"]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    found = read_labeled(path, names=("x", "y", "z"), task_name="multi-label")
    by_id = tmp_path / "ids.csv"
    by_id.write_text('text,label\na,"[0, 2]"\nb,[]\nc,[1]\n', encoding="utf-8")

    assert found.labels == ((1, 0, 1), (0, 0, 0), (0, 1, 0))
    assert (
        read_labeled(by_id, names=("x", "y", "z"), task_name="multi-label").labels == found.labels
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("unknown", [-1, -1.0])
def test_minus_one_says_that_a_label_is_not_known(
    unknown: float, suffix: str, tmp_path: Path
) -> None:
    """Where several kinds of annotation were merged, -1 stands where an empty cell does."""
    rows = {"text": ["a", "b", "c"], "x": [1, unknown, 0], "y": [unknown, 0, 1]}
    table, path = pa.table(rows), tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        pa.csv.write_csv(table, path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), "utf-8")
    else:
        pa.parquet.write_table(table, path)

    found = read_labeled(path, names=("x", "y"), task_name="multi-label", label_column=("x", "y"))
    texts = read_labels(
        MULTI_LABEL, SplitTable("train", "rows", read_file(path), {}), ("x", "y")
    ).texts

    np.testing.assert_array_equal(found.labels, [[1, np.nan], [np.nan, 0], [0, 1]])
    assert texts == [("x",), (), ("y",)]


def test_a_row_of_which_no_label_is_known_has_none(tmp_path: Path) -> None:
    """A row of -1 alone teaches nothing, as a row of empty cells does."""
    path = tmp_path / "rows.csv"
    path.write_text("text,x,y\na,1,0\nb,-1,\n", encoding="utf-8")
    table = SplitTable("train", "rows", read_file(path), {})

    with pytest.raises(DataError) as caught:
        read_labeled(path, names=("x", "y"), task_name="multi-label", label_column=("x", "y"))

    assert str(caught.value) == (
        "'rows.csv': 1 row without a label, row 1. Add the labels or remove the rows."
    )
    assert read_labels(MULTI_LABEL, table, ("x", "y")).texts == [("x",), None]


@pytest.mark.parametrize(
    ("kind", "cell", "message"),
    [
        ("multi-label", "maybe", "rows.csv': row 1 has 'maybe' in 'x'. A label column of multi-label holds 0 or 1, or nothing or -1 if it is unknown."),
        ("regression", "high", "rows.csv': row 1 has 'high' as its label, which is not a finite number. Check data.label_column."),
        ("regression", "inf", "rows.csv': row 1 has 'inf' as its label, which is not a finite number. Check data.label_column."),
        ("regression", "", "rows.csv': 1 row without a label, row 1. Add the labels or remove the rows."),
    ],
)  # fmt: skip
def test_a_label_that_is_none_is_named_with_its_row(
    kind: TaskName, cell: str, message: str, tmp_path: Path
) -> None:
    """What the cell says, where it stands, and what belongs there."""
    path = tmp_path / "rows.csv"
    path.write_text(f"text,x,y\na,1,0\nb,{cell},1\n", encoding="utf-8")
    columns: str | Sequence[str] = ("x", "y") if kind == "multi-label" else "x"

    with pytest.raises(DataError) as caught:
        read_labeled(path, names=("x", "y"), task_name=kind, label_column=columns)

    assert str(caught.value) == f"'{message}"


# What does not go together


def test_a_key_that_says_nothing_in_the_task_is_refused(base: Path, tmp_path: Path) -> None:
    """A metric of another task, a list of label columns, thresholds."""
    good = _recipe(tmp_path, base, "regression", "lora").model_dump()
    for change, message in (
        ({"training": TrainingSection(metric_for_best_model="macro_f1")}, "is not a metric of 'task: regression'"),
        ({"data": DataSection(train_file="x.csv", label_column=("a", "b"))}, "needs 'task: multi-label'"),
        ({"training": TrainingSection(label_threshold=0.3)}, "'training.label_threshold' has no meaning"),
        ({"training": TrainingSection(class_weights="balanced")}, "'training.class_weights' has no meaning"),
        ({"training": TrainingSection(class_weights={"a": 2.0})}, "'training.class_weights' has no meaning"),
        ({"training": TrainingSection(label_smoothing_factor=0.1)}, "'training.label_smoothing_factor' has no meaning in 'task: regression'; it belongs to single-label"),
        ({"training": TrainingSection(label_smoothing_factor=0.1), "task": "multi-label", "data": DataSection(train_file="x.csv", label_column=("a", "b"))}, "'training.label_smoothing_factor' has no meaning in 'task: multi-label'; it belongs to single-label"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            peftune.Recipe(**{**good, "strategy": STRATEGIES["lora"], **change})


def test_a_comparison_reads_single_label_tasks_alone(base: Path, tmp_path: Path) -> None:
    """It is told before anything runs."""
    from peftune.experiments.compare import compare

    rows = _write_tickets(tmp_path / "tickets.csv")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"version: 1\nname: numbers\ntask: regression\nmodel: {{name_or_path: {base}}}\n"
        f"data: {{train_file: {rows}, text_column: body, label_column: score}}\n"
        "strategy: {name: lora}\noutput_dir: out\n",
        encoding="utf-8",
    )

    with pytest.raises(UsageError, match="reads the accuracy of single-label tasks"):
        compare(path, strategies=["lora"], seeds=[0], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_search_proposes_no_comparison_that_would_be_refused(base: Path, tmp_path: Path) -> None:
    """The winners of a regression are run one by one, and the reason says so."""
    from peftune.experiments.tune.tuning_results import write_comparison

    recipe = _recipe(tmp_path, base, "regression", "lora")

    written = write_comparison(recipe, {"lora": recipe}, trials=2, folder=tmp_path)

    assert written == (None, "a comparison reads single-label tasks, and this is regression")


def test_thresholds_must_be_as_many_as_labels(base: Path, tmp_path: Path) -> None:
    """One for all, or one a label."""
    recipe = _recipe(tmp_path, base, "multi-label", "lora", label_threshold=(0.5, 0.5))

    with pytest.raises(DataError, match="2 numbers for 3 labels"):
        peftune.run(recipe)


def test_a_regression_is_refused_as_a_classifier_of_one_label(base: Path) -> None:
    """With one label transformers would fit numbers without a word."""
    with pytest.raises(UsageError, match="at least two labels"):
        peftune.prepare(
            str(base), strategy=STRATEGIES["lora"], labels=["only"], max_length=24, use_cpu=True
        )
    model, _ = peftune.prepare(
        str(base),
        strategy=STRATEGIES["lora"],
        labels=["score"],
        task="regression",
        max_length=24,
        use_cpu=True,
    )
    assert unwrapped(model).config.problem_type == "regression"
