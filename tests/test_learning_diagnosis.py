"""Both curves on one scale: training rows are scored as validation rows are, and change nothing."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import peftune
from peftune.data.rows import Rows
from peftune.data.task_data import Task
from peftune.experiments import Run
from peftune.findings.check import find_in_run
from peftune.findings.facts import RunFacts
from peftune.findings.finding import Finding
from peftune.models.architecture import trainable_parameters
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of, prepare_model
from peftune.recipe import read_recipe
from peftune.recipe.training import TrainingSection
from peftune.strategies import LoRA
from peftune.tasks import methods_of
from peftune.training.train import TrainingResult, train

NAMES = ("bad", "good")
RECIPE = """\
version: 1
name: by-heart
model: {{name_or_path: {base}, max_length: 32}}
data: {{train_file: train.jsonl, validation_file: validation.jsonl}}
strategy: {{name: full}}
training:
  max_steps: 60
  eval_strategy: steps
  eval_steps: 4
  per_device_train_batch_size: 16
  learning_rate: 2.0e-3
  use_cpu: true
output_dir: out
"""


def rows(count: int, seed: int) -> Rows:
    """Make texts of random letters whose label has nothing to do with them."""
    draw = np.random.default_rng(seed)
    texts = tuple("".join(draw.choice(list("abcdef "), size=12)) for _ in range(count))
    return Rows(
        tuple(str(index) for index in range(count)),
        texts,
        tuple(index % 2 for index in range(count)),
    )


def trained(
    base: Path,
    folder: Path,
    *callbacks: TrainerCallback,
    sample: bool = True,
    validation: int = 24,
    **changes: Any,  # noqa: ANN401 - fields of the section
) -> tuple[TrainingResult, dict[str, torch.Tensor]]:
    """Train a LoRA with dropout for a few steps; give how it went and the weights."""
    model = prepare_model(
        str(base), LoRA(lora_dropout=0.2), labels=NAMES, max_length=32, seed=0, use_cpu=True
    )
    section = TrainingSection(
        **{
            "max_steps": 9,
            "per_device_train_batch_size": 8,
            "learning_rate": 3.0e-3,
            "weight_decay": 0.0,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "logging_steps": 3,
            "metric_for_best_model": "loss",
            "use_cpu": True,
            **changes,
        }
    )
    result = train(
        model,
        Task(NAMES, rows(32, 0), rows(validation, 1), None, {}),
        section,
        checkpoints=folder,
        run_identity="this",
        callbacks=callbacks,
        score_train_sample=sample,
    )
    weights = {name: p.detach().clone() for name, p in trainable_parameters(model).items()}
    return result, weights


class ScoresOfAll(TrainerCallback):
    """Score all training rows at every evaluation, with code that is none of the Trainer's."""

    def __init__(self) -> None:
        self.found: list[dict[str, float | None]] = []

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
        """Classify the rows."""
        model, judged = kwargs["model"], rows(32, 0)
        tokenizer = preparation_of(model).tokenizer
        logits = predict_logits(model, tokenizer, judged.texts, max_length=32)
        self.found.append(methods_of("single-label").metrics(logits, np.array(judged.labels)))


def test_scoring_training_rows_changes_no_weight_and_no_choice(base: Path, tmp_path: Path) -> None:
    """Dropout, batches, the validation curve and the kept checkpoint are those of a run without."""
    with_sample, weights = trained(base, tmp_path / "with")
    without, plain_weights = trained(base, tmp_path / "without", sample=False)

    assert with_sample.order_sha256 == without.order_sha256
    assert (with_sample.best_step, with_sample.best_value) == (
        without.best_step,
        without.best_value,
    )
    assert [
        {key: value for key, value in point.items() if not key.startswith("train_sample")}
        for point in with_sample.curve
    ] == list(without.curve)
    assert weights.keys() == plain_weights.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, plain_weights[name]), name


def test_the_sample_is_scored_as_the_validation_rows_are(base: Path, tmp_path: Path) -> None:
    """In eval mode, with the weights of the evaluation: where all rows are sampled, as `predict_logits` does."""
    watch = ScoresOfAll()

    result, _ = trained(base, tmp_path, watch, validation=40)

    points = [point for point in result.curve if "validation_loss" in point]
    assert len(points) == len(watch.found) == 3
    for point, scores in zip(points, watch.found, strict=True):
        assert point["train_sample_loss"] == pytest.approx(scores["log_loss"], abs=1e-5)
        assert point["train_sample_accuracy"] == scores["accuracy"]
        assert {key for key in point if key.startswith("train_sample_")} == {
            f"train_sample_{key.removeprefix('validation_')}"
            for key in point
            if key.startswith("validation_")
        }


def test_scoring_training_rows_is_no_training_time(base: Path, tmp_path: Path) -> None:
    """The seconds of evaluations are put aside, those of the sample too."""

    class Slow(TrainerCallback):
        def on_predict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
            time.sleep(1.0)

    started = time.perf_counter()
    result, _ = trained(base, tmp_path, Slow())

    assert result.seconds is not None
    assert result.seconds < time.perf_counter() - started - 3.0


# The findings.


@pytest.fixture(scope="module")
def by_heart(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Learn senseless labels by heart, with an evaluation at every fourth step."""
    folder = tmp_path_factory.mktemp("by-heart")
    for split, seed in (("train", 0), ("validation", 1)):
        drawn = rows(48, seed)
        lines = [
            json.dumps({"text": text, "label": NAMES[label]})
            for text, label in zip(drawn.texts, drawn.labels, strict=True)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(base=base), encoding="utf-8")
    return peftune.run(recipe, output=folder / "run")


@pytest.mark.slow
def test_an_overfitted_run_says_where_it_began_and_its_plot_marks_it(by_heart: Run) -> None:
    """From the step of the finding on, validation rows get worse and training rows better."""
    [found] = [each for each in by_heart.findings if each.code == "overfitting"]
    points = [point for point in by_heart.learning.curve if "validation_loss" in point]
    began = next(point for point in points if point["step"] == found.step)
    page = peftune.report(by_heart.folder, output=by_heart.folder / "page").page.read_text("utf-8")

    assert began["validation_loss"] == min(point["validation_loss"] for point in points)
    assert points[-1]["validation_loss"] > began["validation_loss"] + 0.1
    assert points[-1]["train_sample_loss"] < began["train_sample_loss"]
    assert points[-1]["train_sample_accuracy"] > 0.85
    assert f"Marked: overfitting from step {found.step}." in page
    assert "training rows from" in page
    assert "validation rows from" in page


def test_training_rows_that_stay_where_they_began_are_underfitting(facts: RunFacts) -> None:
    """Two labels of equal frequency: a loss of ln 2 = 0.693, of which 95% is 0.658."""
    curve = [(3, 0.70, 0.71), (6, 0.60, 0.62), (9, 0.69, 0.69), (12, 0.68, 0.67)]

    [found] = findings(facts, curve)

    assert found == Finding(
        "underfitting",
        "warning",
        "From step 9 to step 12 the model did no better than by knowing only how frequent each label is, which gives a loss of 0.693 nats: the loss ended at 0.680 on training rows and 0.670 on validation rows.",
        "Train for more epochs, or raise training.learning_rate or what the strategy may change (such as the rank r).",
        step=9,
    )


def test_losses_that_still_fall_at_the_end_are_underfitting(facts: RunFacts) -> None:
    """Over the last third as steep as before; not where the training rows have come to rest."""
    falling = [(4, 0.65, 0.66), (8, 0.55, 0.60), (12, 0.45, 0.52)]
    resting = [(4, 0.45, 0.66), (8, 0.45, 0.60), (12, 0.45, 0.52)]

    [found] = findings(facts, falling)

    assert (found.code, found.step) == ("underfitting", 8)
    assert found.message == (
        "Training ended while the loss was still falling: from step 8 to step 12 from 0.550 to 0.450 nats on training rows, and from 0.600 to 0.520 on validation rows."
    )
    assert findings(facts, resting) == []


def test_a_good_run_has_no_finding(facts: RunFacts) -> None:
    """Both losses fall and come to rest; a gap between them alone is not a fault."""
    assert findings(facts, [(4, 0.40, 0.50), (8, 0.20, 0.42), (12, 0.15, 0.41)]) == []


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_overfitting_to_numbers_does_not_depend_on_their_scale(
    scale: float, facts: RunFacts
) -> None:
    """Squared errors have the labels' own unit, so what counts as noise is a share of them."""
    recipe = facts.recipe.model_copy(update={"task": "regression"})
    numbers = dataclasses.replace(facts, recipe=recipe)
    quiet = [(4, 0.5 * scale, 1.0 * scale), (8, 0.4 * scale, 1.09 * scale)]
    loud = [(4, 0.5 * scale, 1.0 * scale), (8, 0.4 * scale, 1.11 * scale)]

    [found] = findings(numbers, loud)

    assert findings(numbers, quiet) == []
    assert found.message.startswith(
        f"Overfitting began at step 4: from there to step 8 the loss of validation rows rose from {scale:.4g} to {1.11 * scale:.4g}, while that of training rows fell from {0.5 * scale:.4g} to {0.4 * scale:.4g}. "
    )


def findings(facts: RunFacts, points: Sequence[tuple[int, float, float]]) -> list[Finding]:
    """Look for pitfalls in a curve of step, loss of training rows and validation loss."""
    curve = [
        {"step": step, "train_sample_loss": training, "validation_loss": validation}
        for step, training, validation in points
    ]
    training = dataclasses.replace(facts.training, curve=curve)
    return find_in_run(dataclasses.replace(facts, training=training))


@pytest.fixture(scope="module")
def facts() -> RunFacts:
    """Give the facts of a run without a fault, but for its curve."""
    labels = [0, 1] * 50
    logits = np.array([[2.0, 0.0] if label == 0 else [0.0, 2.0] for label in labels])
    logits[:10] = logits[:10, ::-1]
    learning = methods_of("single-label").score(
        logits,
        tuple(labels),
        names=NAMES,
        split="test",
        baselines={"majority": {"accuracy": 0.5}, "tfidf_logistic_regression": {"accuracy": 0.6}},
    )
    training = TrainingResult(
        seconds=1.0,
        examples=100,
        steps=12,
        order_sha256=None,
        peak_memory_bytes=None,
        curve=[],
        best_step=12,
        best_value=0.9,
        resumed_from=None,
        bf16=False,
        truncated=0,
    )
    recipe = read_recipe("quickstart")
    return RunFacts(recipe, learning, (), 0.0, training, {"bad": 50, "good": 50}, 100)
