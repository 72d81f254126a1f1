"""Training: the same twice, the same after an interruption, the best kept, divergence refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from peftune import Run, read_recipe
from peftune.adapters.tensors import adapter_tensors
from peftune.bundled import TASKS, bundled_folder
from peftune.data.rows import Rows
from peftune.data.task_data import Task, load_task
from peftune.errors import TrainingError
from peftune.experiments import run
from peftune.models.prepare import prepare_model
from peftune.recipe import Recipe, resolve
from peftune.tasks import methods_of
from peftune.training.checkpoints import latest_whole, write_digest
from peftune.training.train import PeakMemory, TrainingResult, train
from peftune.training.trainer import ClassifierTrainer

WEIGHTS = "adapter_model.safetensors"
EVAL_STEPS, MAX_STEPS = 3, 9
SIZE = "per_device_train_batch_size"


class PowerCutError(BaseException):
    """What no code of peftune catches: the process is gone."""


@pytest.fixture
def recipe(tiny_base: Path) -> Callable[..., Recipe]:
    """Make a recipe of nine steps that is scored and kept at every third."""

    def make(*overrides: str) -> Recipe:
        return read_recipe(
            "quickstart",
            [
                f"model.name_or_path={tiny_base}",
                "forgetting.probes=[]",
                "data.max_train_examples=48",
                "data.max_validation_examples=20",
                "data.max_test_examples=20",
                f"training.max_steps={MAX_STEPS}",
                "training.eval_strategy=steps",
                f"training.eval_steps={EVAL_STEPS}",
                "training.per_device_train_batch_size=8",
                "training.logging_steps=1",
                "training.use_cpu=true",
                *overrides,
            ],
        )

    return make


def before_each_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Do something in the middle of each optimizer step, told how many are done."""

    class Act(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
            act(args[1].global_step)

    build = ClassifierTrainer.__init__

    def build_with_act(self: ClassifierTrainer, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        build(self, **kwargs)
        self.add_callback(Act)

    monkeypatch.setattr(ClassifierTrainer, "__init__", build_with_act)


def cut_power_at_step_7(done: int) -> None:
    """End the process in its second epoch, after the checkpoint of step 6."""
    if done == 7:
        raise PowerCutError


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("training.train_sampling_strategy=group_by_length", "strategy.lora_dropout=0.3"),
        ("training.train_sampling_strategy=random", "strategy.lora_dropout=0"),
    ],
    ids=["group_by_length and dropout", "random and no dropout"],
)
def test_a_resumed_run_gives_the_bytes_of_an_uninterrupted_one(
    overrides: tuple[str, ...],
    recipe: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Interrupted in its second epoch and run again, a run saves the same adapter, byte for byte."""
    rows = bundled_folder("bundled:posts", among=TASKS) / "validation.jsonl"
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(rows.read_text().splitlines()[:48]))
    chosen = recipe(
        "data.dataset_name=null",
        *(f"data.{split}_file={few}" for split in ("train", "validation", "test")),
        "data.accept_leakage=true",  # the same rows everywhere, so that the loss falls to the end
        "training.learning_rate=3.0e-3",
        "training.metric_for_best_model=loss",
        *overrides,
    )
    uninterrupted = run(chosen, output=tmp_path / "uninterrupted")
    losses = [point.get("validation_loss", 9.0) for point in uninterrupted.learning.curve]
    assert min(losses) == losses[-1], "the kept weights must be made after the interruption"
    with monkeypatch.context() as patch:
        before_each_step(patch, cut_power_at_step_7)
        with pytest.raises(PowerCutError):
            run(chosen, output=tmp_path / "interrupted")
    assert not (tmp_path / "interrupted" / "adapter").exists()

    steps: list[int] = []
    with monkeypatch.context() as patch, caplog.at_level("INFO", logger="peftune"):
        before_each_step(patch, steps.append)
        resumed = run(chosen, output=tmp_path / "interrupted")

    assert "resuming from checkpoint-6" in caplog.messages
    assert steps == [6, 7, 8]
    assert (resumed.artifact / WEIGHTS).read_bytes() == (
        uninterrupted.artifact / WEIGHTS
    ).read_bytes()
    assert resumed.learning == uninterrupted.learning
    assert (resumed.cost.examples_seen, uninterrupted.cost.examples_seen) == (72, 72)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("keys", "steps", "read"),
    [
        ((f"{SIZE}=32", "max_steps=1"), 1, 32),
        ((f"{SIZE}=32", "max_steps=3"), 3, 36 + 32),
        ((f"{SIZE}=8", "gradient_accumulation_steps=2", "max_steps=2"), 2, 32),
        ((f"{SIZE}=8", "gradient_accumulation_steps=2", "max_steps=4"), 4, 36 + 16),
        ((f"{SIZE}=8", "num_train_epochs=0.5"), 3, 24),
        ((f"{SIZE}=16", "num_train_epochs=2"), 6, 72),
    ],
)
def test_the_rows_that_steps_read_are_counted(
    keys: Sequence[str], steps: int, read: int, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Of 36 rows: the last batch of an epoch is smaller, and what regularizers read is not a row."""
    chosen = recipe(
        "data.max_train_examples=36",
        "training.max_steps=-1",
        *(f"training.{key}" for key in keys),
        "forgetting.regularizers=[{type: kl-to-base, text: generated, sequences: 1, length: 4, pool: 2}]",
    )

    _, result = _trained(chosen, tmp_path, keep_checkpoints=False)

    assert (result.steps, result.examples) == (steps, read)


@pytest.mark.slow
def test_two_runs_of_a_recipe_give_the_same_bytes(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """A recipe decides every bit of its adapter; another seed decides otherwise."""
    torch.manual_seed(1)
    first = run(recipe(), output=tmp_path / "first")
    torch.manual_seed(2)
    second = run(recipe(), output=tmp_path / "second")
    other = run(recipe("training.seed=1"), output=tmp_path / "other")

    first_bytes = (first.artifact / WEIGHTS).read_bytes()
    assert (second.artifact / WEIGHTS).read_bytes() == first_bytes
    assert (other.artifact / WEIGHTS).read_bytes() != first_bytes


def test_a_diverging_run_fails_and_saves_no_adapter(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """A loss that is no number ends the run with the remedy, before anything is saved."""
    with pytest.raises(
        TrainingError,
        match=r"^Training diverged: (loss|grad_norm) is (nan|inf) at step \d\. "
        r"Lower training\.learning_rate, or check the data\.$",
    ):
        run(recipe("training.learning_rate=1.0e+30"), output=tmp_path / "run")

    assert not (tmp_path / "run" / "adapter").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))


def test_the_best_checkpoint_is_kept_and_not_the_last(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Where each score is worse than the one before, the first checkpoint's weights are kept."""
    model, result = _trained(recipe("training.metric_for_best_model=loss"), tmp_path, misled=True)

    losses = [point["validation_loss"] for point in result.curve if "validation_loss" in point]
    assert losses == sorted(losses), "the task must get worse for this test to mean anything"
    assert len(losses) == MAX_STEPS / EVAL_STEPS
    assert (result.best_step, result.best_value) == (EVAL_STEPS, losses[0])
    _assert_same(adapter_tensors(model), _kept(tmp_path, EVAL_STEPS))


def test_early_stopping_stops(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """With a patience of one, the first score that is no better ends training."""
    chosen = recipe("training.metric_for_best_model=loss", "training.early_stopping_patience=1")

    model, result = _trained(chosen, tmp_path, misled=True)

    scored = [point["step"] for point in result.curve if "validation_loss" in point]
    assert scored == [EVAL_STEPS, 2 * EVAL_STEPS]
    _assert_same(adapter_tensors(model), _kept(tmp_path, EVAL_STEPS))


@pytest.mark.costly
@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (
            lambda checkpoint: (checkpoint / "peftune_digest.json").unlink(),
            "checkpoint-9 is not resumed from: it was not written to its end",
        ),
        (
            lambda checkpoint: _flip_a_bit(checkpoint / WEIGHTS),
            "checkpoint-9 is not resumed from: its file adapter_model.safetensors is missing or damaged",
        ),
        (
            lambda checkpoint: (checkpoint / "optimizer.pt").unlink(),
            "checkpoint-9 is not resumed from: its file optimizer.pt is missing or damaged",
        ),
    ],
    ids=["torn", "damaged", "incomplete"],
)
def test_a_broken_checkpoint_is_skipped_for_the_one_before(
    damage: Callable[[Path], None],
    word: str,
    recipe: Callable[..., Recipe],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The newest checkpoint is broken: training goes on from the one before, to the same weights."""
    chosen = recipe("training.metric_for_best_model=loss")
    model, _ = _trained(chosen, tmp_path)
    before, newest = sorted(int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir())
    damage(tmp_path / f"checkpoint-{newest}")

    resumed, result = _trained(chosen, tmp_path)

    assert newest == 9
    assert word in caplog.messages
    assert result.resumed_from == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"checkpoint-{before}",
        "checkpoint-9",
    ], "what was set aside goes when a newer checkpoint is whole"
    _assert_same(adapter_tensors(resumed), adapter_tensors(model))


def test_what_was_set_aside_earlier_goes_with_the_next(tmp_path: Path) -> None:
    """At most one generation of broken checkpoints lies there, and other folders are left alone."""
    (tmp_path / "checkpoint-of-mine").mkdir()
    for torn in (6, 9):
        (tmp_path / f"checkpoint-{torn}").mkdir()
        assert latest_whole(tmp_path, "this") is None

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-of-mine",
        "skipped-checkpoint-9",
    ]


def test_a_checkpoint_is_whole_before_the_one_that_it_replaces_goes(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends as the checkpoint of step 9 gets its digest goes on from step 6, not 3."""
    chosen = recipe("training.metric_for_best_model=loss")

    def cut_power_at_step_9(checkpoint: Path, run_identity: str) -> None:
        if checkpoint.name == "checkpoint-9":
            raise PowerCutError
        write_digest(checkpoint, run_identity)

    with monkeypatch.context() as patch:
        patch.setattr("peftune.training.trainer.write_digest", cut_power_at_step_9)
        with pytest.raises(PowerCutError):
            _trained(chosen, tmp_path, misled=True)

    _, result = _trained(chosen, tmp_path, misled=True)

    assert (result.resumed_from, result.best_step) == (6, EVAL_STEPS)


def test_a_moved_run_keeps_its_best_checkpoint(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The best one lies beside the newest, wherever Trainer's state says that it was written."""
    chosen = recipe(*EPOCHS, "training.metric_for_best_model=loss", "training.num_train_epochs=2")
    _trained(chosen, tmp_path / "here", misled=True)
    (tmp_path / "here").rename(tmp_path / "there")

    model, result = _trained(chosen, tmp_path / "there", misled=True)

    assert (result.resumed_from, result.best_step) == (12, 6)
    _assert_same(adapter_tensors(model), _kept(tmp_path / "there", 6))


def test_a_checkpoint_whose_best_is_damaged_is_not_resumed_from(
    recipe: Callable[..., Recipe], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would end with other weights than the uninterrupted run, so training begins anew."""
    chosen = recipe("training.metric_for_best_model=loss")
    model, _ = _trained(chosen, tmp_path, misled=True)
    _flip_a_bit(tmp_path / f"checkpoint-{EVAL_STEPS}" / WEIGHTS)

    again, result = _trained(chosen, tmp_path, misled=True)

    assert (
        "checkpoint-9 is not resumed from: its best checkpoint, checkpoint-3, is missing or damaged"
        in caplog.messages
    )
    assert result.resumed_from is None
    _assert_same(adapter_tensors(again), adapter_tensors(model))


STOPPED_BY_BUDGET = (
    "forgetting.budget=-9.0",  # so that any checkpoint is over it
    "forgetting.during_training.over_budget=stop-training",
    "forgetting.during_training.probe={type: lm-loss, dataset_name: bundled:general-text, max_documents: 2}",
)
EPOCHS = ("training.max_steps=-1", "training.eval_strategy=epoch", "training.eval_steps=null")
NO_BETTER = ("training.metric_for_best_model=accuracy", "training.learning_rate=1.0e-9")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "last"),
    [
        (("training.max_steps=8", "strategy.name=lora"), 8),
        (("training.max_steps=8", "strategy={name: full}"), 8),
        (("training.max_steps=8", "strategy={name: head-only}"), 8),
        (("training.max_steps=8", "strategy={name: lora-8bit}"), 8),
        ((*EPOCHS, "training.num_train_epochs=2"), 12),
        ((*EPOCHS, "training.num_train_epochs=1.5"), 9),
        ((*NO_BETTER, "training.early_stopping_patience=1"), 6),
        (STOPPED_BY_BUDGET, 3),
    ],
    ids=[
        "steps lora",
        "steps full",
        "steps head-only",
        "steps lora-8bit",
        "epochs",
        "part of an epoch",
        "early stopping",
        "budget",
    ],
)
def test_a_training_that_had_ended_is_not_trained_on(
    overrides: tuple[str, ...],
    last: int,
    recipe: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ended after its last checkpoint and run again, a run takes no step and gives the same bytes."""
    chosen = recipe("training.lr_scheduler_type=constant", *overrides)
    whole = run(chosen, output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("peftune.experiments.run_execution.save_artifact", _cut_power)
        with pytest.raises(PowerCutError):
            run(chosen, output=tmp_path / "cut")

    with monkeypatch.context() as patch:
        before_each_step(patch, _cut_power)
        again = run(chosen, output=tmp_path / "cut")

    assert again.cost.steps == last
    assert _contents(again.artifact) == _contents(whole.artifact)
    for name in ("predictions.jsonl", "documents.jsonl", "texts.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert _untimed(again) == _untimed(whole)
    assert again.cost.reason is not None
    assert "peak_memory_bytes: the run was resumed after its last step" in again.cost.reason


@pytest.mark.slow
def test_patience_and_unlogged_losses_outlast_an_interruption(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run stops at the same step, and the points of its curve are the same."""
    chosen = recipe(
        *NO_BETTER,
        "training.max_steps=18",
        "training.early_stopping_patience=2",
        "training.logging_steps=4",
        "forgetting.regularizers=[{type: kl-to-base, text: generated, sequences: 1, length: 4, pool: 2}]",
    )
    whole = run(chosen, output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_each_step(patch, cut_power_at_step_7)
        with pytest.raises(PowerCutError):
            run(chosen, output=tmp_path / "cut")

    again = run(chosen, output=tmp_path / "cut")

    assert whole.cost.steps == 9
    assert any("penalty_kl-to-base" in point for point in whole.learning.curve)
    assert _untimed(again) == _untimed(whole)


def _cut_power(*_: object, **__: object) -> None:
    raise PowerCutError


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _untimed(result: Run) -> dict[str, Any]:
    """Return a report without times, memory, and what only an uninterrupted run can tell."""
    values = result.as_json()
    for key in ("seconds", "examples_per_second"):
        del values["cost"][f"train_{key}"]
    for key in ("latency_median_ms", "latency_p95_ms", "peak_memory_bytes", "reason"):
        del values["cost"][key]
    del values["run"]["order_sha256"]
    return values


def test_a_checkpoint_of_another_recipe_is_not_resumed_from(
    recipe: Callable[..., Recipe], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint serves the run that wrote it, and no other."""
    _trained(recipe("training.max_steps=3"), tmp_path)

    _, result = _trained(recipe("training.max_steps=3"), tmp_path, identity="another")

    assert result.resumed_from is None
    assert "checkpoint-3 is not resumed from: it belongs to another recipe" in caplog.messages


def test_balanced_accuracy_counts_the_classes_that_have_rows() -> None:
    """Recalls of 1/2 and 1 average to 3/4; a class without rows has no recall, and no warning."""
    logits = np.eye(3)[[0, 1, 2, 2]]

    metrics = methods_of("single-label").metrics(logits, np.array([1, 1, 2, 2]))

    assert metrics["balanced_accuracy"] == 0.75


def _trained(
    recipe: Recipe,
    checkpoints: Path,
    *,
    misled: bool = False,
    identity: str = "this",
    **options: Any,  # noqa: ANN401 - of `train`
) -> tuple[nn.Module, TrainingResult]:
    """Train without judging and saving; misled: what is learned is wrong for the validation rows."""
    chosen, task = resolve(recipe), load_task(recipe.data)
    if misled:
        names = len(task.labels)
        train_rows = _relabeled(task.train, lambda _: 0)
        validation = _relabeled(task.validation, lambda label: 1 + label % (names - 1))
        task = Task(task.labels, train_rows, validation, None, {})
    model = prepare_model(
        chosen.model.name_or_path, chosen.strategy, labels=task.labels, use_cpu=True
    )
    return model, train(
        model,
        task,
        chosen.training,
        checkpoints=checkpoints,
        run_identity=identity,
        regularizers=chosen.forgetting.regularizers,
        **options,
    )


def _relabeled(rows: Rows, label_of: Callable[[int], int]) -> Rows:
    return Rows(rows.ids, rows.texts, tuple(label_of(label) for label in rows.labels))


def _kept(checkpoints: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(checkpoints / f"checkpoint-{step}" / WEIGHTS)


def _assert_same(
    actual: dict[str, nn.Parameter], expected: dict[str, nn.Parameter] | dict[str, torch.Tensor]
) -> None:
    assert set(actual) == set(expected)
    assert all(torch.equal(actual[name], expected[name]) for name in actual)


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_peak_does_not_count_what_was_freed_before() -> None:
    """Small tensors that stay keep the C library from giving back what lay between them."""
    pairs = [(torch.ones(2**14), torch.ones(2**6)) for _ in range(4000)]  # 64 KiB each, 256 B
    held = psutil.Process().memory_info().rss
    kept = [small for _, small in pairs]
    del pairs

    with PeakMemory(torch.device("cpu")) as memory:
        pass

    assert len(kept) == 4000
    assert memory.peak_bytes is not None
    assert held - memory.peak_bytes > 200 * 2**20
