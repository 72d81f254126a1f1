"""Train a prepared model on a task, from the start or from where it was interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from typing_extensions import Self

from peftune.data.task_data import Task
from peftune.data.tokens import Tokens, pack_rows, tokenize_rows
from peftune.fastpath.linear_maps import Computing
from peftune.fastpath.mapped_memory import release_freed, release_mapped
from peftune.models.architecture import backbone_of
from peftune.models.prepare import preparation_of
from peftune.progress import shows_bars
from peftune.recipe.task_type import LOWER_IS_BETTER, TaskType
from peftune.recipe.training import TrainingSection
from peftune.regularizers import Regularizer
from peftune.seeds import stream_seed
from peftune.tasks import methods_of
from peftune.tasks.base import ClassLoss
from peftune.training.checkpoints import Checkpoint, latest_whole, remove_unneeded
from peftune.training.fast_path import (
    fast_forward,
    forward_restored,
    held_in_bfloat16,
    kept_gradients,
    uses_bfloat16,
    worth_holding,
)
from peftune.training.trainer import ClassifierTrainer, LanguageTrainer, Objective, rows_read

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """Measure peak memory inside a `with` block.

    On a CPU: the peak resident set of the process, libraries included, in bytes; None where the
    system does not tell (it is Linux that does). On CUDA: the peak of allocated device memory.

    Args:
        device: where the work happens.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_bytes: int | None = None
        self._resettable = False

    def __enter__(self) -> Self:
        """Forget earlier peaks, and give back what earlier work has freed."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            release_freed()
            with contextlib.suppress(OSError):
                _CLEAR.write_text(_RESET_PEAK)
                self._resettable = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Read the peak."""
        if self.device.type == "cuda":
            self.peak_bytes = int(torch.cuda.max_memory_allocated(self.device))
        elif self._resettable:
            self.peak_bytes = _peak_resident_bytes()


def _peak_resident_bytes() -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


@dataclass(frozen=True, slots=True)
class Way:
    """How a task type is trained.

    Args:
        tokens: turns rows into what the model reads.
        trainer: gives the loss.
    """

    tokens: Callable[..., Tokens]
    trainer: type[ClassifierTrainer]


_WITH_HEAD = Way(tokenize_rows, ClassifierTrainer)
_WITHOUT_HEAD = Way(pack_rows, LanguageTrainer)


def way_of(task: TaskType) -> Way:
    """Return how a task type is trained."""
    return _WITH_HEAD if task.has_head else _WITHOUT_HEAD


def training_arguments(
    section: TrainingSection,
    *,
    device: torch.device,
    checkpoints: Path,
    bf16: bool = False,
    run_name: str = "peftune",
) -> TrainingArguments:
    """Translate a resolved `training` section.

    Args:
        section: with learning rate and weight decay filled in.
        device: where the model lives.
        checkpoints: folder for the training state.
        bf16: compute in bfloat16, as `uses_bfloat16` decides.
        run_name: what the programs of `report_to` call the run.
    """
    seed = stream_seed(section.seed, "training")
    warmup = section.warmup_steps
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=section.num_train_epochs,
        max_steps=section.max_steps,
        per_device_train_batch_size=section.per_device_train_batch_size,
        per_device_eval_batch_size=section.per_device_eval_batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        learning_rate=_filled(section.learning_rate, "learning_rate"),
        weight_decay=_filled(section.weight_decay, "weight_decay"),
        lr_scheduler_type=section.lr_scheduler_type,
        warmup_steps=int(warmup) if warmup >= 1 else warmup,
        max_grad_norm=section.max_grad_norm,
        optim=section.optim,
        train_sampling_strategy=section.train_sampling_strategy,
        length_column_name="length",
        eval_strategy=section.eval_strategy,
        save_strategy=section.eval_strategy,
        eval_steps=section.eval_steps,
        save_steps=section.eval_steps or 500,
        logging_steps=section.logging_steps,
        logging_nan_inf_filter=False,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{section.metric_for_best_model}",
        greater_is_better=section.metric_for_best_model not in LOWER_IS_BETTER,
        label_names=["labels"],
        bf16=bf16,
        use_cpu=device.type == "cpu",
        dataloader_num_workers=section.dataloader_num_workers,
        ddp_find_unused_parameters=False,
        disable_tqdm=not shows_bars(),
        report_to=_listed(section.report_to),
        run_name=run_name,
        seed=seed,
        data_seed=seed,
        **_checkpointing(section),
    )


def _checkpointing(section: TrainingSection) -> dict[str, Any]:
    """Transformers 5.23 renamed gradient checkpointing to activation checkpointing."""
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    key = (
        "activation_checkpointing"
        if "activation_checkpointing" in names
        else "gradient_checkpointing"
    )
    return {key: True} if section.activation_checkpointing else {}


def _listed(report_to: str | Sequence[str]) -> list[str]:
    return [report_to] if isinstance(report_to, str) else list(report_to)


def _filled(value: float | None, key: str) -> float:
    if value is None:
        message = f"training.{key} is not resolved"
        raise ValueError(message)
    return value


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
    way = way_of(task.task_type)
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
    computing = Computing.of(backbone_of(model).h, bf16=bf16, tokens=tokens)
    holds = bf16 and worth_holding(model, looked_at=bool(trainer.regularizers or callbacks))
    release_mapped([*model.parameters(), *preparation.before.values()], whole_files=True)
    started = time.perf_counter()
    with (
        forward_restored(model),
        held_in_bfloat16(model) if holds else contextlib.nullcontext(),
        kept_gradients(model, processes=trainer.args.world_size) as buffers,
        fast_forward(model, computing, dropout=section.trunk_dropout, buffers=buffers),
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
    task.task_type.refuse_label_mismatch(task.labels, section)
    methods = methods_of(task.task_name)
    loss = methods.loss(
        task.train.labels,
        names=task.labels,
        weights=section.class_weights,
        smoothing=section.label_smoothing_factor,
    )
    return Objective(
        task_name=task.task_name,
        thresholds=methods.fixed_thresholds(section.label_threshold, len(task.labels)),
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
