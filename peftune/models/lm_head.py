"""The LM head of a backbone: log-probabilities and loss terms of a model, texts and Fisher information of a base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peftune.models.architecture import backbone_of, evaluating, without_dropout
from peftune.models.base_files import BaseSource
from peftune.models.loading import load_language_model
from peftune.models.prepare import acting_as_base

_HELD_LOGITS = 1 << 24
"""Logits that are held for the backward pass; beyond it the head is applied again there."""

_POSITIONS = 256


def divergence_from_base(
    model: nn.Module, sequences: Sequence[Sequence[int]], *, prefix: int
) -> torch.Tensor:
    """Return the mean of KL(base || model) over all tokens of the sequences.

    The base reads first; both read without dropout. Where they are one, it is exactly zero.

    Args:
        model: a prepared model.
        sequences: token ids, of any lengths.
        prefix: token that is fed before each.

    Returns:
        A scalar in nats per token, float32, with a gradient.
    """
    inputs, predicted = _padded(model, sequences, prefix)
    with acting_as_base(model), evaluating(model):
        reference = _states(model, inputs, predicted)
        base_head = backbone_of(model).wte.weight.data
    # What was computed without gradients may not enter a graph as it is.
    reference = reference.clone()
    with without_dropout(model):
        states = _states(model, inputs, predicted)
    head = backbone_of(model).wte.weight
    total = _summed(_divergence, states, head, base_head, by_token=(reference,))
    return total / len(states)


def language_model_loss(
    model: nn.Module, sequences: Sequence[Sequence[int]], *, prefix: int
) -> torch.Tensor:
    """Return the mean negative log-likelihood of all tokens, in nats, with a gradient.

    Args:
        model: any model around a GPT-2 backbone.
        sequences: token ids, of any lengths.
        prefix: token that is fed before each.
    """
    inputs, predicted = _padded(model, sequences, prefix)
    targets = torch.tensor([token for ids in sequences for token in ids], device=inputs.device)
    with without_dropout(model):
        states = _states(model, inputs, predicted)
    head = backbone_of(model).wte.weight
    return _summed(_nats, states, head, by_token=(targets,)) / len(states)


def summed_nats(model: nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum the negative log-likelihood of tokens under the tied head, with a gradient.

    Args:
        model: any model around a GPT-2 backbone.
        states: the last hidden states that predict them, (tokens, hidden).
        targets: the tokens, (tokens,), int64.

    Returns:
        A scalar in nats, float32.
    """
    return _summed(_nats, states, backbone_of(model).wte.weight, by_token=(targets,))


def token_log_probabilities(
    model: nn.Module, sequences: Sequence[Sequence[int]], *, prefix: int
) -> list[torch.Tensor]:
    """Return each sequence's log-probabilities after a prefix token: (tokens,), nats, float32, CPU."""
    inputs, predicted = _padded(model, sequences, prefix)
    with evaluating(model):
        states = _states(model, inputs, predicted)
        logits = (states @ backbone_of(model).wte.weight.T).float()  # (tokens, vocabulary)
        chosen = torch.tensor([token for ids in sequences for token in ids], device=logits.device)
        found = torch.log_softmax(logits, -1).gather(-1, chosen[:, None])[:, 0].cpu()
    return list(found.split([len(ids) for ids in sequences]))


def written_by_base(
    source: BaseSource, count: int, *, length: int, prefix: int, seed: int, device: torch.device
) -> list[list[int]]:
    """Let a base write sequences, sampled at temperature 1 from its whole vocabulary.

    Args:
        source: the base.
        count: sequences.
        length: tokens of each; an end token inside one is kept, and a new text follows it.
        prefix: token that is fed before each.
        seed: decides what is written; the global random state is as it was.
        device: where it is written.
    """
    model = load_language_model(source, device)
    # No token ends a text here: an end token is as likely as the base finds it, and is gone past.
    model.generation_config.eos_token_id = None
    written: list[list[int]] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, count, 64):
            rows = min(64, count - start)
            begin = torch.full((rows, 1), prefix, device=device)
            found: Any = model.generate(  # type: ignore[misc]
                begin,
                attention_mask=torch.ones_like(begin),
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                max_new_tokens=length,
                pad_token_id=prefix,
            )
            written += found[:, 1:].tolist()
    return written


def fisher_information(
    source: BaseSource,
    sequences: Sequence[Sequence[int]],
    *,
    prefix: int,
    seed: int,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """Return the diagonal Fisher information of a base's weights, by name in the backbone.

    Squared gradients of the log-likelihood of next tokens that are drawn from the base's own
    predictions, one sequence at a time, as a mean over tokens.

    References:
        Martens 2020, New insights and perspectives on the natural gradient method: the targets
        are drawn from the model; with the text's own it would be the empirical Fisher.
    """
    model = load_language_model(source, device)
    names = dict(model.transformer.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in names.items()}
    generator = torch.Generator(device).manual_seed(seed)
    for ids in sequences:
        inputs = torch.tensor([[prefix, *ids[:-1]]], device=device)
        logits = model(inputs).logits[0].float()  # (time, vocabulary)
        with torch.no_grad():
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        model.zero_grad(set_to_none=True)
        torch.log_softmax(logits, -1).gather(-1, drawn).sum().backward()
        for name, weight in names.items():
            if weight.grad is not None:
                total[name] += weight.grad.square()
    tokens = sum(len(ids) for ids in sequences)
    return {name: values / tokens for name, values in total.items()}


def _padded(
    model: nn.Module, sequences: Sequence[Sequence[int]], prefix: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feed each sequence after the prefix, without its last token, padded on the right.

    Returns:
        Token ids, (sequences, time), int64, and which positions predict a token, bool.
    """
    device = backbone_of(model).wte.weight.device
    longest = max(len(ids) for ids in sequences)
    rows = [[prefix, *ids[:-1], *[prefix] * (longest - len(ids))] for ids in sequences]
    sizes = torch.tensor([len(ids) for ids in sequences], device=device)
    predicted = torch.arange(longest, device=device) < sizes[:, None]
    return torch.tensor(rows, device=device), predicted


def _states(model: nn.Module, inputs: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    # Causal attention never looks right, so right padding needs no mask.
    hidden: torch.Tensor = backbone_of(model)(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False
    ).last_hidden_state
    return hidden[predicted]  # (sequences, time, hidden) -> (tokens, hidden)


def _summed(
    function: Callable[..., torch.Tensor],
    states: torch.Tensor,
    head: torch.Tensor,
    *others: torch.Tensor,
    by_token: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Sum a function of logits over tokens, a few positions at a time where they are many.

    Where not all logits can be held, they are computed again in the backward pass.

    Args:
        function: sums over the tokens of its first argument.
        states: (tokens, hidden).
        head: (vocabulary, hidden).
        others: arguments that are the same for all tokens.
        by_token: arguments with a row a token.
    """
    if len(states) * len(head) <= _HELD_LOGITS:
        return function(states, head, *by_token, *others)
    parts = []
    for start in range(0, len(states), _POSITIONS):
        chosen = slice(start, start + _POSITIONS)
        rows = [argument[chosen] for argument in by_token]
        part = checkpoint(function, states[chosen], head, *rows, *others, use_reentrant=False)
        parts.append(part)
    return torch.stack(parts).sum()


def _divergence(
    states: torch.Tensor, head: torch.Tensor, reference: torch.Tensor, base_head: torch.Tensor
) -> torch.Tensor:
    """Sum KL(base || model) over positions: (tokens, hidden) -> scalar."""
    own = torch.log_softmax((states @ head.T).float(), dim=-1)
    base = torch.log_softmax((reference @ base_head.T).float(), dim=-1)
    return (base.exp() * (base - own)).sum()


def _nats(states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum the negative log-likelihood: (tokens, hidden) -> scalar."""
    logits = (states @ head.T).float()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
