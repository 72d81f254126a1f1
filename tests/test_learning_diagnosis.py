"""Both curves on one scale: training rows are scored as validation rows are, and change nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import write_base
from transformers import TrainerCallback

from peftune.data.rows import Rows
from peftune.data.task import Task
from peftune.models.inference import predict_logits
from peftune.models.parts import trainable_parameters
from peftune.models.prepare import preparation_of, prepare_model
from peftune.recipe.training import TrainingSection
from peftune.strategies import LoRA
from peftune.training.metrics import task_metrics
from peftune.training.train import TrainingResult, train

NAMES = ("bad", "good")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small random base, with dropout."""
    return write_base(tmp_path_factory.mktemp("base") / "tiny")


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
        self.found.append(task_metrics(logits, np.array(judged.labels)))


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
