"""What a run cost: time, memory, numbers and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from peftune.artifacts.save import artifact_bytes
from peftune.models.inference import seconds_of_each
from peftune.models.parts import head_of, trainable_parameters
from peftune.models.prepare import preparation_of
from peftune.runs.report import Cost
from peftune.training.train import TrainingResult

TIMED_TEXTS = 32
"""Texts whose latency is measured, at most."""
TIMED_SECONDS = 5.0
"""Seconds after which no further text is timed."""


def cost_of(
    model: nn.Module, training: TrainingResult, artifact: Path, *, texts: Sequence[str]
) -> Cost:
    """Sum up a finished run.

    Args:
        model: the trained model.
        training: what training measured.
        artifact: the saved artifact folder.
        texts: the rows that were scored; of some of them the latency is measured. None of a task
            without labels.
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
    if training.peak_memory_bytes is None and training.resumed_from == training.steps:
        reasons.append("peak_memory_bytes: the run was resumed after its last step")
    elif training.peak_memory_bytes is None:
        reasons.append("peak_memory_bytes: this system does not tell a process its peak memory")
    if not texts:
        keys = "latency_median_ms, latency_p95_ms, latency_texts, latency_device"
        reasons.append(f"{keys}: a task without labels classifies no text")
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
        **(_latency(model, texts) if texts else {}),
    )


def _latency(model: nn.Module, texts: Sequence[str]) -> dict[str, Any]:
    """Time texts one by one: at most 32, evenly over all rows, and for about five seconds."""
    preparation = preparation_of(model)
    places = np.unique(np.linspace(0, len(texts) - 1, TIMED_TEXTS).round().astype(int))
    seconds = seconds_of_each(
        model,
        preparation.tokenizer,
        [texts[place] for place in places],
        max_length=preparation.max_length,
        limit=TIMED_SECONDS,
    )
    median, late = (float(value) for value in np.percentile(seconds, [50, 95]) * 1000)
    device = next(model.parameters()).device
    on_cuda = device.type == "cuda"
    return {
        "latency_median_ms": median,
        "latency_p95_ms": late,
        "latency_texts": len(seconds),
        "latency_device": torch.cuda.get_device_name(device) if on_cuda else device.type,
    }
