"""Check what must hold of a model after a strategy has prepared it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from peftune.errors import GuardError
from peftune.models.architecture import (
    evaluating,
    head_of,
    label_count,
    trainable_parameters,
    unwrapped,
)
from peftune.models.interpolation import at_strength
from peftune.strategies import Strategy

IDENTITY_TOLERANCE = 1e-5
"""Largest change of a logit by wrapping alone, relative to the largest logit (or to 1)."""

Batch = Mapping[str, torch.Tensor]


def logits_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the logits of a batch without dropout: (batch, labels), float32."""
    with evaluating(model):
        output: torch.Tensor = model(**batch).logits
    return output.float()


def check_preparation(
    model: nn.Module,
    strategy: Strategy,
    *,
    batch: Batch,
    base_logits: torch.Tensor,
    before: Mapping[str, torch.Tensor],
) -> None:
    """Refuse a prepared model that would train or measure something else than it says.

    Args:
        model: what `strategy.prepare` returned.
        strategy: who prepared it.
        batch: probe batch: input_ids and attention_mask, (batch, time), int64.
        base_logits: logits of the probe batch before wrapping, (batch, labels).
        before: the snapshot that later serves as reference.

    Raises:
        GuardError: naming the guard that failed and what the strategy has to mend.
    """
    check_identity(model, strategy, batch=batch, base_logits=base_logits)
    check_head_learns(model, strategy)
    check_backbone_learns(model, strategy)
    check_gradient(model, strategy, batch=batch)
    check_reference(model, strategy, batch=batch, base_logits=base_logits, before=before)


def check_identity(
    model: nn.Module, strategy: Strategy, *, batch: Batch, base_logits: torch.Tensor
) -> None:
    """Wrapping alone changes no logit: training starts from the base."""
    change = _largest_difference(logits_of(model, batch), base_logits)
    if not change <= IDENTITY_TOLERANCE * max(1.0, float(base_logits.abs().max())):
        _fail(
            strategy,
            "identity",
            f"wrapping alone changes the logits by {change:.3g}; start from an update of zero",
        )


def check_head_learns(model: nn.Module, strategy: Strategy) -> None:
    """The classification head is trainable; a frozen random head can learn no task."""
    if not any(weight.requires_grad for weight in head_of(model).parameters()):
        _fail(
            strategy,
            "head",
            "the classification head is frozen; with peft, pass task_type=TaskType.SEQ_CLS",
        )


def check_backbone_learns(model: nn.Module, strategy: Strategy) -> None:
    """Weights other than the head are trainable exactly if the strategy says so."""
    learning = _backbone_names(model)
    if strategy.trains_backbone and not learning:
        _fail(
            strategy,
            "backbone",
            "no weight but the head is trainable; check which modules it adapts, or set trains_backbone = False",
        )
    if learning and not strategy.trains_backbone:
        _fail(
            strategy, "backbone", f"'{learning[0]}' is trainable although trains_backbone is False"
        )


def check_gradient(model: nn.Module, strategy: Strategy, *, batch: Batch) -> None:
    """A loss on the probe batch reaches the weights that are said to be trainable."""
    names = (
        _backbone_names(model) if strategy.trains_backbone else list(trainable_parameters(model))
    )
    gradients = _probe_gradients(model, batch)
    if not any(name in gradients and bool(gradients[name].abs().max() > 0) for name in names):
        _fail(
            strategy,
            "gradient",
            "no weight of the adapter gets a gradient from the loss, so nothing but the head would learn",
        )


def check_reference(
    model: nn.Module,
    strategy: Strategy,
    *,
    batch: Batch,
    base_logits: torch.Tensor,
    before: Mapping[str, torch.Tensor],
) -> None:
    """With every trainable weight moved, the reference still is the base, bit for bit.

    A strategy that rewrites weights of the base while it wraps would move the zero of forgetting.
    """
    weights = trainable_parameters(model)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.01)
    try:
        with at_strength(model, before, 0.0):
            change = _largest_difference(logits_of(model, batch), base_logits)
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
    if change != 0:
        _fail(
            strategy,
            "reference",
            f"with the adapter disabled the logits differ from the base's by {change:.3g}; it must not change weights of the base while wrapping",
        )


def _probe_gradients(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    head = next(head_of(model).parameters())
    labels = _some_labels(model, len(batch["input_ids"])).to(head.device)
    was_training = model.training
    model.eval()
    try:
        model(**batch, labels=labels).loss.backward()
        return {
            name: weight.grad.clone()
            for name, weight in trainable_parameters(model).items()
            if weight.grad is not None
        }
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)


def _some_labels(model: nn.Module, rows: int) -> torch.Tensor:
    """Make labels of the kind that the model learns, as different as they can be."""
    kind, count = unwrapped(model).config.problem_type, label_count(model)
    numbers = torch.arange(rows)
    if kind == "regression":
        return numbers.float()
    ids = numbers % count
    return (
        nn.functional.one_hot(ids, count).float() if kind == "multi_label_classification" else ids
    )


def _backbone_names(model: nn.Module) -> list[str]:
    head = {id(weight) for weight in head_of(model).parameters()}
    return [name for name, weight in trainable_parameters(model).items() if id(weight) not in head]


def _largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


def _fail(strategy: Strategy, guard: str, fault: str) -> None:
    message = f"Strategy '{strategy.name}' failed the guard '{guard}': {fault}."
    raise GuardError(message)
