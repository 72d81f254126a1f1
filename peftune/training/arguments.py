"""From a recipe's `training` section to `transformers.TrainingArguments`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from peftune.progress import shows_bars
from peftune.recipe.training import TrainingSection
from peftune.seeds import stream_seed
from peftune.tasks.judge import LOWER_IS_BETTER


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
