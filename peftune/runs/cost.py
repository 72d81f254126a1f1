"""What a run cost: time, memory, numbers and bytes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from peftune.artifacts.save import artifact_bytes
from peftune.models.parts import head_of, trainable_parameters
from peftune.runs.report import Cost
from peftune.training.train import TrainingResult


def cost_of(model: nn.Module, training: TrainingResult, artifact: Path) -> Cost:
    """Sum up a finished run.

    Args:
        model: the trained model.
        training: what training measured.
        artifact: the saved artifact folder.
    """
    trainable = sum(weight.numel() for weight in trainable_parameters(model).values())
    # PEFT keeps the untrained head beside the trained one, which is counted once; a head that
    # takes no part is not counted at all.
    frozen_head = sum(
        weight.numel() for weight in head_of(model).parameters() if not weight.requires_grad
    )
    reasons = []
    if training.seconds is None:
        reasons.append("train_seconds: the run was resumed, and earlier time is not counted")
    if training.peak_memory_bytes is None:
        reasons.append("peak_memory_bytes: this system does not tell a process its peak memory")
    return Cost(
        train_seconds=training.seconds,
        train_examples_per_second=training.examples / training.seconds
        if training.seconds
        else None,
        peak_memory_bytes=training.peak_memory_bytes,
        trainable_parameters=trainable,
        total_parameters=sum(weight.numel() for weight in model.parameters()) - frozen_head,
        artifact_bytes=artifact_bytes(artifact),
        examples_seen=training.examples,
        steps=training.steps,
        train_dtype="bfloat16" if training.bf16 else "float32",
        reason="; ".join(reasons) or None,
    )
