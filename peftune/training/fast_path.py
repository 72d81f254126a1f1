"""In which type a training computes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import nn
from transformers import GPT2ForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from peftune.errors import PeftuneError
from peftune.fastpath.dropout import DropoutMasks
from peftune.fastpath.forward import FastBackbone, why_not
from peftune.fastpath.linear import GradientBuffers
from peftune.fastpath.linear_maps import Computing
from peftune.fastpath.lora_layers import is_int8
from peftune.fastpath.products import multiplies_bfloat16
from peftune.models.architecture import (
    backbone_of,
    computes_in_float32,
    trainable_parameters,
    unwrapped,
)
from peftune.models.loading import load_backbone
from peftune.models.prepare import preparation_of

_WORTH_BFLOAT16 = 64_000_000
"""Weights of a backbone from which bfloat16 is chosen on a CPU: a smaller one gains little."""

_WRAPPERS = ("forward", "_original_forward")
"""Attributes by which accelerate wraps a model."""


def uses_bfloat16(setting: bool | Literal["auto"], model: nn.Module) -> bool:
    """Say whether a model is to be trained in bfloat16.

    Args:
        setting: `bf16` of a recipe. `auto` chooses it on a GPU that has it, and on a CPU that
            multiplies bfloat16 for a backbone of at least 64 million weights.
        model: a prepared model.
    """
    if setting != "auto":
        return setting
    backbone = backbone_of(model)
    if backbone.wte.weight.device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return (
        multiplies_bfloat16() and sum(w.numel() for w in backbone.parameters()) >= _WORTH_BFLOAT16
    )


@contextlib.contextmanager
def forward_restored(model: nn.Module) -> Iterator[None]:
    """Take Trainer's autocast off a model afterwards.

    Accelerate puts it around the model's forward and leaves it there: every later score would be
    computed in bfloat16 too, and bitsandbytes would round the biases of an int8 base for good.

    Args:
        model: that Trainer trains inside.
    """
    own = vars(model)
    kept = {name: own[name] for name in _WRAPPERS if name in own}
    try:
        yield
    finally:
        for name in _WRAPPERS:
            own.pop(name, None)
        own.update(kept)


logger = logging.getLogger(__name__)


def worth_holding(model: nn.Module, *, looked_at: bool) -> bool:
    """Say whether a training in bfloat16 holds the frozen backbone in it.

    It does where the backbone takes a GPU's memory: on a CPU it stays mapped, and its pages come and go.

    Args:
        model: a prepared model.
        looked_at: whether terms of the loss or callbacks may look at the base, which then stays.
    """
    on_cpu = backbone_of(model).wte.weight.device.type == "cpu"
    return isinstance(model, PeftModel) and not (on_cpu or looked_at)


@contextlib.contextmanager
def held_in_bfloat16(model: nn.Module) -> Iterator[bool]:
    """Hold the frozen float weights of a backbone in bfloat16 inside: half the bytes.

    They are read from the base again afterwards, so they are what they were, to the bit. Where a
    frozen weight is not the base's, as after a start that rewrites it, nothing is done; nor where
    checkpoints hold the frozen weights too, as they do without PEFT.

    Args:
        model: a prepared model.

    Yields:
        Whether they are held so.
    """
    if not (isinstance(model, PeftModel) and _set_frozen(model, torch.bfloat16)):
        logger.info(
            "frozen weights stay in float32: they are not the base's, or are in checkpoints"
        )
        yield False
        return
    try:
        yield True
    finally:
        _set_frozen(model, torch.float32)


def _set_frozen(model: nn.Module, dtype: torch.dtype) -> bool:
    """Give frozen weights the values of the base, in a type; refuse those that have others."""
    frozen = _frozen_weights(model)
    device = backbone_of(model).wte.weight.device
    try:
        backbone = load_backbone(preparation_of(model).base, device)
    except PeftuneError:
        if dtype == torch.float32:
            raise
        return False
    own = dict(backbone.named_parameters())
    if dtype != torch.float32 and not _are_of(frozen, own):
        return False
    for name, weight in frozen.items():
        weight.data = own[name].data if dtype == torch.float32 else weight.data.to(dtype)
    return True


def _frozen_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return float weights of the backbone that do not learn, by their name in a plain backbone."""
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in backbone_of(model).named_parameters()
        if not weight.requires_grad and weight.is_floating_point()
    }


def _are_of(frozen: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> bool:
    return all(
        name in base and weight.dtype == base[name].dtype and torch.equal(weight, base[name])
        for name, weight in frozen.items()
    )


_WORTH_KEEPING = 8_000_000
"""Learning weights from which it is worth it."""


@contextlib.contextmanager
def kept_gradients(model: nn.Module, *, processes: int = 1) -> Iterator[GradientBuffers | None]:
    """Let `zero_grad` keep the memory of gradients on a CPU, where it would give it back.

    The system hands out memory page by page, and clears each: with half a gigabyte of gradients
    that takes longer than the step's products. Where a backward pass writes into the buffers that are
    yielded, a weight has no gradient until then; other gradients are filled with zeros. The embedding
    adds the few rows of a batch to a gradient that is there, where it would otherwise make one of the
    whole vocabulary. A weight that gets no gradient keeps having none.

    Args:
        model: a prepared model; it has no gradients afterwards.
        processes: that train together; with several, their gradients are left as they are.

    Yields:
        A buffer for each weight; None where gradients are left as they are.
    """
    learning = trainable_parameters(model).values()
    on_cpu = all(weight.device.type == "cpu" for weight in learning)
    if processes > 1 or not on_cpu or sum(weight.numel() for weight in learning) < _WORTH_KEEPING:
        yield None
        return
    buffers = GradientBuffers(learning)
    embedding = backbone_of(model).wte
    own, kept = model.zero_grad, embedding.sparse

    @functools.wraps(own)
    def zero_grad(*_: Any, **__: Any) -> None:  # noqa: ANN401 - torch's signature
        for weight in learning:
            buffer = buffers.of(weight)
            if weight.grad is not None and buffer is not None and buffer.holds(weight.grad):
                weight.grad = None
        own(set_to_none=False)
        if embedding.weight.grad is not None:
            embedding.sparse = True

    model.zero_grad = zero_grad  # type: ignore[method-assign]
    try:
        yield buffers
    finally:
        del model.zero_grad
        embedding.sparse = kept
        model.zero_grad(set_to_none=True)


_TAKEN = {"input_ids", "attention_mask", "labels", "output_hidden_states"}
"""Arguments of a forward that the fast forward understands; with any other the model's own is called."""

_MULTIPLE = 4
_LARGE = 256
"""Tokens of a batch from which padding would cost more time than its memory is worth."""


@contextlib.contextmanager
def fast_forward(
    model: nn.Module,
    computing: Computing,
    *,
    dropout: bool = True,
    buffers: GradientBuffers | None = None,
) -> Iterator[str | None]:
    """Let a classifier compute with the fast forward inside; its own forward comes back afterwards.

    The logits and gradients are those of its own forward up to rounding, with dropout drawn from
    another stream of random numbers. Texts must be padded on the right, with one pad id. Of
    hidden states the last alone is given. A base in 8-bit integers is evaluated by its own forward,
    whose numbers are what is reported of it.

    Args:
        model: a prepared classifier.
        computing: how products are computed.
        dropout: drop what the base's configuration says, while training.
        buffers: where gradients of weights are written, from `kept_gradients`.

    Yields:
        Why the model's own forward is used instead; None where the fast forward is.
    """
    inner: Any = unwrapped(model)
    reason = _why_not(model)
    if reason is not None:
        logger.info("training uses the model's own forward: %s", reason)
        yield reason
        return
    computing = dataclasses.replace(computing, buffers=buffers)
    inner.forward = _fast_forward(
        inner, FastBackbone(backbone_of(model), computing, dropout=dropout)
    )
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
    return why_not(backbone_of(model))


def _fast_forward(inner: Any, backbone: FastBackbone) -> Callable[..., Any]:  # noqa: ANN401 - GPT2ForSequenceClassification
    own = inner.forward
    evaluated_by_own = any(is_int8(module) for module in inner.modules())

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - transformers' signature
        given = {name for name, value in kwargs.items() if value is not None}
        tokens = kwargs.get("input_ids")
        if args or tokens is None or not given <= _TAKEN | {"return_dict"}:
            return own(*args, **kwargs)
        if computes_in_float32() and backbone.dtype != torch.float32:
            return own(*args, **kwargs)
        # Trainer switches the recomputing of activations on when it begins.
        recomputes = backbone_of(inner).gradient_checkpointing
        if recomputes if inner.training else evaluated_by_own:
            return own(*args, **kwargs)
        with torch.autocast(tokens.device.type, enabled=False):
            return _classified(
                inner,
                backbone,
                tokens,
                kwargs.get("labels"),
                bool(kwargs.get("output_hidden_states")),
            )

    return forward


def _classified(
    inner: Any,  # noqa: ANN401 - GPT2ForSequenceClassification
    backbone: FastBackbone,
    tokens: torch.Tensor,
    labels: torch.Tensor | None,
    all_states: bool,
) -> SequenceClassifierOutputWithPast:
    masks = DropoutMasks(tokens.device) if inner.training else None
    last = last_places(tokens, inner.config.pad_token_id)
    if all_states:
        states = backbone(tokens, None, masks).view(*tokens.shape, -1)
        pooled = states[torch.arange(len(last), device=last.device), last]
    else:
        pooled = backbone(_of_few_shapes(tokens, inner.config.pad_token_id), last, masks)
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
    """Return the place of each row's last token that is not padding, as transformers finds it."""
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
