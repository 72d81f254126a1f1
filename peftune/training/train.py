"""Train a prepared model on a task, from the start or from where it was interrupted."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback

from peftune.data.task import Task
from peftune.data.tokens import Tokens
from peftune.lean.gradients import kept_gradients
from peftune.lean.held import held_in_bfloat16, worth_holding
from peftune.lean.maps import Computing
from peftune.lean.training import lean_training
from peftune.models.memory import release_mapped
from peftune.models.prepare import preparation_of
from peftune.recipe.task import refuse_label_mismatch
from peftune.recipe.training import TrainingSection
from peftune.regularizers import Regularizer
from peftune.seeds import stream_seed
from peftune.tasks.loss import ClassLoss, given_weights, loss_of
from peftune.tasks.thresholds import fixed_thresholds
from peftune.training.arguments import training_arguments
from peftune.training.checkpoints import Checkpoint, latest_whole, remove_unneeded
from peftune.training.memory import PeakMemory
from peftune.training.precision import forward_restored, uses_bfloat16
from peftune.training.trainer import ClassifierTrainer, Objective, rows_read
from peftune.training.ways import way_of

logger = logging.getLogger(__name__)

_EVALUATION = "eval_"
"""What Trainer puts before the name of a value that it found in an evaluation."""

MOST_SAMPLED = 500
"""Training rows that are scored at an evaluation; fewer where there are fewer validation rows."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training cost, and how it went.

    Args:
        seconds: time in training steps, without evaluation and checkpoints; None after a resume.
        examples: rows that the steps read, repeats counted; before a resume too. Text that
            regularizers read is not among them.
        steps: optimizer steps.
        order_sha256: hash of the batches in the order in which they were read; None after a
            resume, or where other processes prepared them.
        peak_memory_bytes: most memory of the process (CPU) or of the device (CUDA) while training;
            None where the system does not tell, or no step was left to take after a resume.
        curve: points of the training and validation curves, in order.
        best_step: step of the checkpoint that was kept; None if none was scored.
        best_value: its value of the metric that chose it.
        resumed_from: step that training went on from; None if it began at the start.
        bf16: whether it computed in bfloat16.
        truncated: training texts longer than the limit.
        dropped_tokens: tokens at the end of a packed training text that were too few for a window.
    """

    seconds: float | None
    examples: int
    steps: int
    order_sha256: str | None
    peak_memory_bytes: int | None
    curve: Sequence[Mapping[str, Any]]
    best_step: int | None
    best_value: float | None
    resumed_from: int | None
    bf16: bool
    truncated: int
    dropped_tokens: int = 0


def train(
    model: nn.Module,
    task: Task,
    section: TrainingSection,
    *,
    checkpoints: Path,
    run_identity: str,
    keep_checkpoints: bool = True,
    run_name: str = "peftune",
    regularizers: Sequence[Regularizer] = (),
    callbacks: Sequence[TrainerCallback] = (),
    score_train_sample: bool = True,
) -> TrainingResult:
    """Train and leave the best checkpoint's weights in the model.

    Args:
        model: from `prepare_model`; changed in place, in eval mode afterwards.
        task: rows to learn and to choose by.
        section: resolved `training` section.
        checkpoints: folder of the training state; a whole checkpoint of this run in it is resumed,
            and one of a training that had ended is loaded, not trained on.
        run_identity: hash that ties checkpoints to this run.
        keep_checkpoints: write them; without, training cannot be resumed, and the model keeps the
            last weights, not the best.
        run_name: what the programs of `report_to` call the run.
        regularizers: terms added to the loss.
        callbacks: what else happens in training.
        score_train_sample: score as many training rows as there are validation rows, at most 500,
            at every evaluation, so that the curve has both on one scale.

    Raises:
        TrainingError: the loss became infinite or no number.
    """
    preparation = preparation_of(model)
    device = next(model.parameters()).device
    bf16 = uses_bfloat16(section.bf16, model)
    way = way_of(task.kind)
    learned, chosen_by = (
        way.tokens(rows, preparation.tokenizer, max_length=preparation.max_length)
        for rows in (task.train, task.validation)
    )
    trainer = way.trainer(
        model=model,
        args=training_arguments(
            section, device=device, checkpoints=checkpoints, bf16=bf16, run_name=run_name
        ),
        tokenizer=preparation.tokenizer,
        train=learned.dataset,
        validation=chosen_by.dataset,
        train_sample=_sample(learned, chosen_by, section) if score_train_sample else None,
        run_identity=run_identity,
        keep_checkpoints=keep_checkpoints,
        patience=section.early_stopping_patience,
        objective=_objective(task, section),
        regularizers=regularizers,
        regularizer_seed=section.seed,
    )
    for callback in callbacks:
        trainer.add_callback(callback)
    resume = _resumed_from(checkpoints, run_identity)
    tokens = learned.mean_length * section.per_device_train_batch_size
    computing = Computing.of(model, bf16=bf16, tokens=tokens)
    holds = bf16 and worth_holding(model, looked_at=bool(trainer.regularizers or callbacks))
    release_mapped([*model.parameters(), *preparation.before.values()], whole_files=True)
    started = time.perf_counter()
    with (
        forward_restored(model),
        held_in_bfloat16(model) if holds else contextlib.nullcontext(),
        kept_gradients(model, processes=trainer.args.world_size) as rooms,
        lean_training(model, computing, dropout=section.trunk_dropout, rooms=rooms),
        PeakMemory(device) as memory,
    ):
        trainer.train() if resume is None else trainer.train_from(resume)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started - trainer.seconds_aside
    model.eval()
    if keep_checkpoints:
        remove_unneeded(checkpoints)
    return _result(trainer, learned, seconds, memory.peak_bytes, resume)


def _resumed_from(checkpoints: Path, run_identity: str) -> Checkpoint | None:
    resume = latest_whole(checkpoints, run_identity)
    if resume is not None:
        ended = ", the end of training" if resume.ended else ""
        logger.info("resuming from %s%s", resume.path.name, ended)
    return resume


def _result(
    trainer: ClassifierTrainer,
    learned: Tokens,
    seconds: float,
    peak_memory_bytes: int | None,
    resume: Checkpoint | None,
) -> TrainingResult:
    state, hashed = trainer.state, not (resume or trainer.args.dataloader_num_workers)
    return TrainingResult(
        seconds=None if resume else seconds,
        examples=rows_read(state),
        steps=state.global_step,
        order_sha256=trainer.order.sha256 if hashed else None,
        peak_memory_bytes=None if resume and resume.ended else peak_memory_bytes,
        curve=[_point(entry) for entry in state.log_history if "train_runtime" not in entry],
        best_step=state.best_global_step,
        best_value=state.best_metric,
        resumed_from=None if resume is None else resume.step,
        bf16=bool(trainer.args.bf16),
        truncated=learned.truncated,
        dropped_tokens=learned.dropped_tokens,
    )


def _objective(task: Task, section: TrainingSection) -> Objective:
    refuse_label_mismatch(task.kind, task.labels, section)
    count = len(task.labels)
    loss = loss_of(
        task.kind,
        task.train.labels,
        classes=count,
        weights=given_weights(section.class_weights, task.labels),
        smoothing=section.label_smoothing_factor,
    )
    return Objective(
        kind=task.kind,
        thresholds=fixed_thresholds(section.label_threshold, count),
        loss=loss,
        evaluation_loss=loss.unsmoothed() if isinstance(loss, ClassLoss) else None,
    )


def _sample(learned: Tokens, chosen_by: Tokens, section: TrainingSection) -> Dataset:
    """Draw rows once for the whole training: the same at every evaluation, and after a resume."""
    generator = np.random.default_rng(stream_seed(section.seed, "train_sample"))
    drawn = generator.permutation(len(learned.dataset))
    most = min(len(chosen_by.dataset), MOST_SAMPLED)
    return learned.dataset.select(sorted(drawn[:most].tolist()))


def _point(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Name a logged entry's values as the report does; speeds of evaluation are left out."""
    return {
        _name(name): value
        for name, value in entry.items()
        if not (name.startswith(_EVALUATION) and name.endswith(("_runtime", "_per_second")))
    }


def _name(name: str) -> str:
    if name == "loss":
        return "train_loss"
    if name.startswith(_EVALUATION):
        return f"validation_{name.removeprefix(_EVALUATION)}"
    return name
