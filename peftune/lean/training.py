"""Put the lean forward on a prepared classifier for the time of a training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import GPT2ForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from peftune.kernels.noise import Noise
from peftune.kernels.rooms import Rooms
from peftune.lean.maps import Computing
from peftune.lean.trunk import LeanTrunk, why_not
from peftune.models.low_rank import is_int8
from peftune.models.parts import computes_in_float32, trunk_of, unwrapped

logger = logging.getLogger(__name__)

_TAKEN = {"input_ids", "attention_mask", "labels", "output_hidden_states"}
"""Arguments of a forward that the lean one understands; with any other the model's own is called."""

_MULTIPLE = 4
_LARGE = 256
"""Tokens of a batch from which padding would cost more time than its memory is worth."""


@contextlib.contextmanager
def lean_training(
    model: nn.Module, computing: Computing, *, dropout: bool = True, rooms: Rooms | None = None
) -> Iterator[str | None]:
    """Let a classifier compute leanly inside; its own forward comes back afterwards.

    The logits and gradients are those of its own forward up to rounding, with dropout drawn from
    another stream of random numbers. Texts must be padded on the right, with one pad id. Of
    hidden states the last alone is given. A base in 8-bit integers is evaluated by its own forward,
    whose numbers are what is reported of it.

    Args:
        model: a prepared classifier.
        computing: how products are computed.
        dropout: drop what the base's configuration says, while training.
        rooms: where gradients of weights are written, from `kept_gradients`.

    Yields:
        Why the model's own forward is used instead; None where the lean one is.
    """
    inner: Any = unwrapped(model)
    reason = _why_not(model)
    if reason is not None:
        logger.info("training uses the model's own forward: %s", reason)
        yield reason
        return
    computing = dataclasses.replace(computing, rooms=rooms)
    inner.forward = _lean_forward(inner, LeanTrunk(trunk_of(model), computing, dropout=dropout))
    try:
        yield None
    finally:
        del inner.forward


def _why_not(model: nn.Module) -> str | None:
    inner = unwrapped(model)
    if type(inner) is not GPT2ForSequenceClassification or "forward" in vars(inner):
        return "it is not transformers' own classifier"
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return "the strategy puts tokens in front of the text"
    return why_not(trunk_of(model))


def _lean_forward(inner: Any, trunk: LeanTrunk) -> Callable[..., Any]:  # noqa: ANN401 - GPT2ForSequenceClassification
    own = inner.forward
    evaluated_by_own = any(is_int8(module) for module in inner.modules())

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - transformers' signature
        given = {name for name, value in kwargs.items() if value is not None}
        tokens = kwargs.get("input_ids")
        if args or tokens is None or not given <= _TAKEN | {"return_dict"}:
            return own(*args, **kwargs)
        if computes_in_float32() and trunk.dtype != torch.float32:
            return own(*args, **kwargs)
        # Trainer switches the recomputing of activations on when it begins.
        recomputes = trunk_of(inner).gradient_checkpointing
        if recomputes if inner.training else evaluated_by_own:
            return own(*args, **kwargs)
        with torch.autocast(tokens.device.type, enabled=False):
            return _classified(
                inner,
                trunk,
                tokens,
                kwargs.get("labels"),
                bool(kwargs.get("output_hidden_states")),
            )

    return forward


def _classified(
    inner: Any,  # noqa: ANN401 - GPT2ForSequenceClassification
    trunk: LeanTrunk,
    tokens: torch.Tensor,
    labels: torch.Tensor | None,
    all_states: bool,
) -> SequenceClassifierOutputWithPast:
    noise = Noise(tokens.device) if inner.training else None
    last = last_places(tokens, inner.config.pad_token_id)
    if all_states:
        states = trunk(tokens, None, noise).view(*tokens.shape, -1)
        pooled = states[torch.arange(len(last), device=last.device), last]
    else:
        pooled = trunk(_of_few_shapes(tokens, inner.config.pad_token_id), last, noise)
    logits = inner.score(pooled)
    return SequenceClassifierOutputWithPast(
        loss=None if labels is None else _loss(inner, logits, labels),
        logits=logits,
        hidden_states=(states,) if all_states else None,
    )


def _of_few_shapes(tokens: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Pad a small batch further, to lengths that a multiple divides.

    OneDNN makes machine code for each shape of a product and keeps it: some 5 MB for all those of a
    length, which is more than the activations of a small batch.
    """
    rows, time = tokens.shape
    if tokens.device.type != "cpu" or rows * time >= _LARGE:
        return tokens
    return nn.functional.pad(tokens, (0, -time % _MULTIPLE), value=pad_token_id)


def last_places(tokens: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Return the place of each row's last token that is no padding, as transformers finds it."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return (places * (tokens != pad_token_id)).argmax(-1)


def _loss(inner: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - the classifier
    """Return the loss that transformers' classifier returns, for its kind of problem."""
    functional = nn.functional
    kind = inner.config.problem_type
    if kind == "regression":
        return functional.mse_loss(logits.squeeze(), labels.squeeze())
    if kind == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, labels)
    return functional.cross_entropy(logits.view(-1, inner.num_labels), labels.view(-1))
