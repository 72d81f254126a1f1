"""Find the parts of a model: backbone, head, trainable parameters; and evaluate it in float32."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

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


def without_container(model: nn.Module) -> nn.Module:
    """Return the model inside what trains it: torch.compile, or a wrapper for several processes."""
    inner = getattr(model, "_orig_mod", model)
    if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = inner.module
    return model if inner is model else without_container(inner)


def backbone_of(model: nn.Module) -> GPT2Model:
    """Return the transformer without any head, with whatever adapter is injected into it."""
    inner = unwrapped(model)
    backbone = inner if isinstance(inner, GPT2Model) else inner.base_model
    if not isinstance(backbone, GPT2Model):
        message = f"expected a GPT-2, got {type(backbone).__name__}"
        raise TypeError(message)
    return backbone


def head_of(model: nn.Module) -> nn.Module:
    """Return the classification head, which PEFT may have wrapped."""
    inner = unwrapped(model)
    if not isinstance(inner, GPT2ForSequenceClassification):
        message = f"expected a sequence classifier, got {type(inner).__name__}"
        raise TypeError(message)
    return inner.score


def label_count(model: nn.Module) -> int:
    """Return the number of labels of a classifier."""
    return len(unwrapped(model).config.id2label or {})


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable weights, by name: this is the adapter."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def is_whole_model(model: nn.Module) -> bool:
    """Say whether every weight is trainable, so that the artifact is the model itself.

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


_IN_FLOAT32: ContextVar[bool] = ContextVar("in_float32", default=False)


def computes_in_float32() -> bool:
    """Say whether a model is being read, so that a forward in another type must step aside."""
    return _IN_FLOAT32.get()


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Let a model compute in the type of its weights inside, whoever asks for another one.

    That may be a `torch.autocast` around the reading, or a wrapper around the model's forward:
    accelerate leaves one on a model that Trainer trained with `bf16=True`. Autocast is therefore
    off around the model, and again inside whatever is wrapped around it.

    Args:
        model: any model around a GPT-2 backbone; it is as it was afterwards.
    """
    device = next(model.parameters()).device.type
    # A model without wrappers is not touched: several threads may read it.
    parts = list(_computing_parts(model)) if _has_wrapper(model) else []
    before = [vars(part).get("forward") for part in parts]
    token = _IN_FLOAT32.set(True)
    try:
        for part in parts:
            vars(part)["forward"] = _without_autocast(part.forward, device)
        with autocast_off(device):
            yield
    finally:
        _IN_FLOAT32.reset(token)
        for part, own in zip(parts, before, strict=True):
            vars(part).pop("forward")
            if own is not None:
                vars(part)["forward"] = own


def autocast_off(device: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a kind of device computes in the types of its arguments."""
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def _has_wrapper(model: nn.Module) -> bool:
    """Say whether a forward was put on a model itself, in the place of its class's."""
    whole = (PreTrainedModel, PeftModel)
    return any(isinstance(part, whole) and "forward" in vars(part) for part in model.modules())


def _computing_parts(model: nn.Module) -> Iterator[nn.Module]:
    """Give the parts of a model that compute, whatever is wrapped around the model."""
    for part in model.modules():
        if isinstance(part, GPT2Model):
            yield part
        elif isinstance(part, GPT2ForSequenceClassification):
            yield part.score
        elif isinstance(part, PeftModel):
            yield from getattr(part, "prompt_encoder", nn.ModuleDict()).values()


def _without_autocast(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    @functools.wraps(forward)
    def without(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any module's signature
        with autocast_off(device):
            return forward(*args, **kwargs)

    return without


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Read a model: without dropout and gradients, in float32; all of it comes back afterwards."""
    with without_dropout(model), in_float32(model), torch.inference_mode():
        yield
