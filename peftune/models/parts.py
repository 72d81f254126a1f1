"""The parts of a prepared model, found through the model's own structure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from peft import PeftModel
from torch import nn
from transformers import GPT2ForSequenceClassification, GPT2Model, PreTrainedModel


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside a PEFT model, or the model itself."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(inner, PreTrainedModel):
        message = f"expected a transformers model, got {type(inner).__name__}"
        raise TypeError(message)
    return inner


def trunk_of(model: nn.Module) -> GPT2Model:
    """Return the transformer without any head, with whatever adapter is injected into it."""
    inner = unwrapped(model)
    trunk = inner if isinstance(inner, GPT2Model) else inner.base_model
    if not isinstance(trunk, GPT2Model):
        message = f"expected a GPT-2, got {type(trunk).__name__}"
        raise TypeError(message)
    return trunk


def head_of(model: nn.Module) -> nn.Module:
    """Return the classification head, which PEFT may have wrapped."""
    inner = unwrapped(model)
    if not isinstance(inner, GPT2ForSequenceClassification):
        message = f"expected a sequence classifier, got {type(inner).__name__}"
        raise TypeError(message)
    return inner.score


def label_count(model: nn.Module) -> int:
    """Return how many labels a classifier tells apart."""
    return len(unwrapped(model).config.id2label or {})


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that learn, by name: this is the adapter."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def is_whole_model(model: nn.Module) -> bool:
    """Say whether every weight learns, so that the artifact is the model itself.

    A head that takes no part does not count; a classifier's takes part always.
    """
    if isinstance(model, PeftModel):
        return False
    head = list(head_of(model).parameters())
    unused = {id(weight) for weight in head} if not any(w.requires_grad for w in head) else set()
    return all(weight.requires_grad for weight in model.parameters() if id(weight) not in unused)


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode inside; each one's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off inside; every module's mode comes back afterwards."""
    with without_dropout(model), torch.inference_mode():
        yield
