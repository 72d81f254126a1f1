"""Task metrics against closed forms and scikit-learn, computed without a network."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef
from transformers import EvalPrediction

from peftune.errors import TrainingError
from peftune.recipe.task_type import SINGLE_LABEL
from peftune.stats import tests
from peftune.stats.scores import roc_auc_interval
from peftune.tasks import methods_of
from peftune.tasks.scores import learned_something
from peftune.tasks.significance import significance_of_classes
from peftune.tasks.single_label import SequenceClassificationMetrics

TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, 2, 0, 2])
"""By class: hits 3, 2, 2; true 4, 3, 3; predicted 5, 3, 2."""


def _logits(predicted: Sequence[int] | NDArray[np.int64], classes: int = 3) -> NDArray[np.float32]:
    """Give the predicted class three quarters of the probability, the others the rest evenly."""
    rest = 0.25 / (classes - 1)
    return np.log(np.where(np.eye(classes)[predicted] == 1, 0.75, rest)).astype(np.float32)


def test_the_metrics_are_those_worked_out_by_hand() -> None:
    """Counts by hand: F1 is 2 hits / (true + predicted); log loss is -ln of the true share."""
    f1 = [2 * 3 / 9, 2 * 2 / 6, 2 * 2 / 5]

    metrics = methods_of("single-label").metrics(_logits(PREDICTED), TRUTH)

    assert metrics == pytest.approx(
        {
            "accuracy": 7 / 10,
            "balanced_accuracy": (3 / 4 + 2 / 3 + 2 / 3) / 3,
            "macro_f1": sum(f1) / 3,
            "weighted_f1": (4 * f1[0] + 3 * f1[1] + 3 * f1[2]) / 10,
            "micro_f1": 7 / 10,
            # Gorodkin 2004: hits times rows less true times predicted, over the same of each side.
            "mcc": (7 * 10 - (4 * 5 + 3 * 3 + 3 * 2))
            / math.sqrt((100 - (16 + 9 + 9)) * (100 - (25 + 9 + 4))),
            # Mann-Whitney by class, ties half: (hits, true) against (false alarms, others).
            "roc_auc": (_auc(3, 4, 2, 6) + _auc(2, 3, 1, 7) + _auc(2, 3, 0, 7)) / 3,
            "log_loss": -(7 * math.log(0.75) + 3 * math.log(0.125)) / 10,
        },
        rel=1e-6,
    )


def _auc(hits: int, true: int, false_alarms: int, others: int) -> float:
    """Area under the curve of a score with two values: (1 + hit rate - false alarm rate) / 2."""
    return (1 + hits / true - false_alarms / others) / 2


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_f1_of_the_positive_label_and_the_correlation_are_scikit_learns(classes: int) -> None:
    """The positive one of two labels is the second, `pos_label=1`; of more labels none is."""
    generator = np.random.default_rng(classes)
    truth = generator.integers(0, classes, 60)
    logits = generator.normal(size=(60, classes)) + 2 * np.eye(classes)[truth]
    predicted = logits.argmax(-1)

    metrics = methods_of("single-label").metrics(logits, truth)

    assert metrics["mcc"] == pytest.approx(matthews_corrcoef(truth, predicted), rel=1e-12)
    if classes == 2:
        assert (
            metrics["binary_f1"]
            == f1_score(truth, predicted)
            != f1_score(1 - truth, 1 - predicted)
        )
        learning = methods_of("single-label").score(
            logits, tuple(truth.tolist()), names=("no", "yes"), split="test"
        )
        assert learning.metrics["binary_f1"] == learning.per_label["yes"]["f1"]
    else:
        assert "binary_f1" not in metrics


def test_a_model_that_always_says_the_same_has_no_correlation_and_no_f1() -> None:
    """Both are 0, as scikit-learn defines them, and nothing warns."""
    metrics = methods_of("single-label").metrics(_logits([0] * 6, 2), np.array([0, 1, 0, 1, 1, 0]))

    assert (metrics["mcc"], metrics["binary_f1"]) == (0.0, 0.0)


def test_two_classes_have_the_area_of_the_second() -> None:
    """With two classes the scores of the second rank the rows: 3 of 4 pairs are in order."""
    logits = np.array([[0.0, 0.1], [0.0, 0.4], [0.0, 0.35], [0.0, 0.8]], dtype=np.float32)

    assert methods_of("single-label").metrics(logits, np.array([0, 0, 1, 1]))["roc_auc"] == 0.75


def test_the_area_is_none_where_a_class_has_no_rows() -> None:
    """A number that is undefined is left out of training's metrics and null in the report."""
    truth = np.array([0, 0, 1, 1])
    logits = _logits([0, 1, 1, 2])

    learning = methods_of("single-label").score(
        logits, tuple(truth.tolist()), names=("a", "b", "c"), split="test"
    )

    assert methods_of("single-label").metrics(logits, truth)["roc_auc"] is None
    assert "roc_auc" not in methods_of("single-label").metrics_for_trainer()(
        EvalPrediction(logits, truth)
    )
    assert learning.metrics["roc_auc"] is None
    assert learning.reason == (
        "ci95: macro_f1 takes 5 rows of every label: a has 2, b has 2, c has 0; "
        "roc_auc: a label has no rows in this split"
    )
    # F1 of the three classes: 2/3, 1/2, and 0 for the one that does not occur.
    assert learning.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 3)
    # Recall is averaged over the classes that occur.
    assert learning.metrics["balanced_accuracy"] == 0.5


def test_the_metrics_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate.load` fetches a script from the hub; this metric opens no connection."""

    def refuse(*arguments: object) -> None:
        message = f"a connection to {arguments[1:]}"
        raise AssertionError(message)

    monkeypatch.setattr(socket.socket, "connect", refuse)

    metric = SequenceClassificationMetrics(keep_in_memory=True)
    result = metric.compute(predictions=_logits(PREDICTED).tolist(), references=TRUTH.tolist())

    assert result is not None
    assert result["accuracy"] == 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_ends_training(value: float) -> None:
    """A model that gives NaN has no accuracy, although NaN has an arg-max."""
    logits = _logits(PREDICTED)
    logits[3, 1] = value

    with pytest.raises(TrainingError) as caught:
        methods_of("single-label").metrics(logits, TRUTH)
    assert str(caught.value) == (
        "The model's outputs are not finite: training has diverged. "
        "Lower training.learning_rate, or check the data."
    )


def test_one_row_has_no_interval() -> None:
    """A single row has no spread to resample."""
    learning = methods_of("single-label").score(
        _logits([0]), (0,), names=("a", "b", "c"), split="test"
    )

    assert dict(learning.ci95) == {"accuracy": None, "macro_f1": None, "roc_auc": None}
    assert learning.reason == (
        "ci95: one row has no spread; roc_auc: a label has no rows in this split"
    )


def test_the_scores_by_label_and_the_confusion_add_up() -> None:
    """Rows are true labels, columns predicted ones; precision and recall follow from them."""
    learning = methods_of("single-label").score(
        _logits(PREDICTED), TRUTH.tolist(), names=("a", "b", "c"), split="test"
    )

    assert learning.confusion == [[3, 1, 0], [1, 2, 0], [1, 0, 2]]
    assert learning.per_label["a"] == pytest.approx(
        {"precision": 3 / 5, "recall": 3 / 4, "f1": 2 / 3, "support": 4}
    )
    assert learning.n == 10
    assert learning.loss == learning.metrics["log_loss"]


def test_the_interval_of_an_area_has_hanley_and_mcneils_error_at_its_ends() -> None:
    """Both ends lie 1.96 of their own standard errors away, so at 0.5 they are as far from it."""
    low, high = roc_auc_interval(0.5, [30], [50]) or (0.0, 0.0)
    # The rarer answer is the one that varies more where the area is above 0.5.
    varied = 29 * (high / (2 - high) - high**2) + 49 * (2 * high**2 / (1 + high) - high**2)
    error = math.sqrt((high * (1 - high) + varied) / (30 * 50))

    assert high - 0.5 == pytest.approx(1.96 * error)
    assert 0.5 - low == pytest.approx(high - 0.5)
    assert roc_auc_interval(0.5, [30, 30], [50, 50]) == pytest.approx((low, high))
    assert roc_auc_interval(None, [3], [5]) is None
    assert roc_auc_interval(0.7, [0], [5]) is None


@pytest.mark.parametrize(
    ("recall", "alarms", "ranked", "metric", "learned"),
    [
        (0.7, 0.1, True, "macro_f1", True),
        (0.7, 0.1, True, "balanced_accuracy", True),
        (0.7, 0.1, True, "accuracy", False),
        (0.0, 0.0, True, "roc_auc", True),
        (0.0, 0.0, True, "macro_f1", False),
        (0.05, 0.05, False, "macro_f1", False),
        (0.05, 0.05, False, "roc_auc", False),
        (0.0, 0.0, False, "macro_f1", False),
        (0.0, 0.0, False, "mcc", False),
    ],
)
def test_a_rare_label_is_learned_by_the_score_that_the_recipe_asks_for(
    recall: float, alarms: float, ranked: bool, metric: str, learned: bool
) -> None:
    """Of 400 rows 5% are of the rare label: always naming the other is right in 95 of 100.

    Balanced weights give some of that for the rare label: macro F1 says so. Probabilities that rank
    rows while every row is given the same label are what ROC AUC asks for.
    """
    truth = [int(i % 20 == 0) for i in range(400)]
    order = np.random.default_rng(0).permutation(400)
    found = {0: 0, 1: 0}
    predicted = []
    for label in truth:
        found[label] += 1
        share, of = (recall, 20) if label else (alarms, 380)
        predicted.append(int(found[label] <= share * of))
    scores = np.array([2.0 * t if ranked else o / 400 for t, o in zip(truth, order, strict=True)])
    logits = np.zeros((400, 2))
    logits[:, 1] = np.where(np.array(predicted) == 1, 3.0, -3.0) + (scores - scores.max()) / 4

    learning = methods_of("single-label").score(
        logits, tuple(truth), names=("common", "rare"), split="test", metric=metric
    )

    assert (learning.accuracy or 0) <= 0.95
    assert learned_something(learning) is learned


METRICS_OF_CLASSES = tuple(name for name in SINGLE_LABEL.metrics if name != "loss")


@pytest.mark.costly
@pytest.mark.parametrize(
    ("labels", "shares"), [(2, (0.5, 0.5)), (2, (0.9, 0.1)), (4, (0.4, 0.3, 0.2, 0.1))]
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_guesser_has_learned_nothing_by_any_metric(
    labels: int, shares: tuple[float, ...], seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 150 guessers by the labels' frequencies at most 2.5% pass: 3.75, and up to 10 by chance.

    The chance of more than 10 of 150 is 0.2% (binomial), and it is the same draw at every run.
    """
    monkeypatch.setattr(tests, "_MOST_PERMUTATIONS", 199)  # (1 + 4) / 200 is 2.5%
    generator = np.random.default_rng(seeds)
    passed = dict.fromkeys(METRICS_OF_CLASSES, 0)
    for _ in range(150):
        truth = generator.choice(labels, size=120, p=shares)
        logs = np.log(generator.dirichlet(10 * np.array(shares), size=(seeds, 120)))
        said = generator.choice(labels, size=(seeds, 120), p=shares)
        for metric in METRICS_OF_CLASSES:
            if metric == "binary_f1" and labels > 2:
                continue
            found = significance_of_classes(truth, said, logs, metric=metric)
            passed[metric] += found.learned

    assert max(passed.values()) <= 10


def test_the_permutations_agree_with_a_count_by_hand() -> None:
    """Macro F1 of permuted labels by hand, of the ones that were seen by scikit-learn."""
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1], 30)
    said = np.where(generator.random(60) < 0.62, truth, 1 - truth)

    def macro_f1(labels: NDArray[np.int64]) -> float:
        return float(
            np.mean(
                [
                    2
                    * ((labels == k) & (said == k)).sum()
                    / ((labels == k).sum() + (said == k).sum())
                    for k in (0, 1)
                ]
            )
        )

    scores = [macro_f1(generator.permutation(truth)) for _ in range(4000)]
    observed = float(f1_score(truth, said, average="macro"))
    short = 0.5 - float(np.mean(scores))
    reference = float(np.mean([score + max(0.0, short) >= observed - 1e-12 for score in scores]))

    found = significance_of_classes(
        truth, said[None], np.log(np.eye(2)[said] * 0.8 + 0.1)[None], metric="macro_f1"
    )

    assert found.without_reading == 0.5
    assert found.p_value == pytest.approx(reference, abs=0.02)


def test_accuracy_is_set_against_each_constant_answer() -> None:
    """SST-2 of a near-constant model, [[21, 121], [17, 141]]: 162 of 300 right, a constant has 158.

    Given to other rows, 38 answers of the first label hit k of its 142 rows by the hypergeometric
    distribution, on average 17.99, and 2 k + 120 rows are right: the constant has 2.04 more than that.
    """
    truth = np.repeat([0, 1], (142, 158))
    said = np.r_[np.repeat([0, 1], (21, 121)), np.repeat([0, 1], (17, 141))]

    found = significance_of_classes(
        truth, said[None], np.log(np.eye(2)[said] * 0.8 + 0.1)[None], metric="accuracy"
    )

    assert found.without_reading == pytest.approx(158 / 300)
    # 120 + 2 k + 2.03 is 162 or more from k = 20 on; the mean of the permutations may make it 21.
    at_least = [float(stats.hypergeom.sf(k - 1, 300, 142, 38)) for k in (21, 20)]
    assert at_least[0] - 0.03 < found.p_value < at_least[1] + 0.03
    assert not found.learned


@pytest.mark.slow
def test_more_seeds_see_more() -> None:
    """An accuracy of 0.65 on 100 rows of two even classes is seen by five seeds taken together.

    Asked of each seed by itself, one of five would fall short in 76 of 100 comparisons.
    """
    generator = np.random.default_rng(0)
    learned, each = 0, 0
    for _ in range(100):
        truth = generator.integers(0, 2, 100)
        said = np.where(generator.random((5, 100)) < 0.65, truth, 1 - truth)
        logs = np.log(np.eye(2)[said] * 0.8 + 0.1)
        learned += significance_of_classes(truth, said, logs, metric="accuracy").learned
        each += all(
            significance_of_classes(truth, said[[k]], logs[[k]], metric="accuracy").learned
            for k in range(5)
        )

    assert learned >= 93
    assert each <= 60


def test_a_seed_that_collapsed_does_not_hide_what_the_others_learned() -> None:
    """Two of three seeds have 75 of 100 rows right, and the mean of the three is not had by chance."""
    truth = np.arange(100) % 2
    read = np.where(np.arange(100) < 75, truth, 1 - truth)
    said = np.array([read, read, np.ones_like(truth)])
    logs = np.log(np.eye(2)[said] * 0.8 + 0.1)

    for metric in ("mcc", "macro_f1", "balanced_accuracy", "accuracy", "roc_auc"):
        assert significance_of_classes(truth, said, logs, metric=metric).learned, metric


@pytest.mark.parametrize(("hits", "learned"), [(200, True), (110, False), (100, False)])
@pytest.mark.parametrize("metric", METRICS_OF_CLASSES)
def test_something_was_learned_if_the_score_is_beyond_guessing(
    hits: int, learned: bool, metric: str
) -> None:
    """Of 200 rows in two even classes, 110 right ones are within chance (± 14) of 100."""
    truth = [0, 1] * 100
    predicted = [t if i < hits else 1 - t for i, t in enumerate(truth)]

    learning = methods_of("single-label").score(
        _logits(predicted, 2), tuple(truth), names=("a", "b"), split="test", metric=metric
    )

    assert learned_something(learning) is learned
