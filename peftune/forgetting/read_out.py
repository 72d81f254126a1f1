"""The output head, applied a few positions at a time so that full logits are never held."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from peftune.kernels.reading import product

POSITIONS = 128
"""Positions to which the vocabulary-sized head is applied at a time; bounds memory, not results."""


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """Last hidden states and the head that reads them.

    Args:
        states: (tokens, hidden).
        head: the output embedding, (vocabulary, hidden).
    """

    states: torch.Tensor
    head: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """What was read out at every target, (tokens,) each, on the model's device.

    Args:
        nats: negative log-likelihood, float32.
        greedy: whether the target is the likeliest token, bool; None where it was not asked for.
        kl: KL(base || model) in nats, float32; None without a base.
        base_entropy: of the base's prediction in nats, float32; None without a base.
        agreement: whether model and base find the same token likeliest; None without a base.
        base_nats: `nats` of the base; None without a base.
        base_head_nats: `nats` under the base's head; None where that is the model's own head.
    """

    nats: torch.Tensor
    greedy: torch.Tensor | None = None
    kl: torch.Tensor | None = None
    base_entropy: torch.Tensor | None = None
    agreement: torch.Tensor | None = None
    base_nats: torch.Tensor | None = None
    base_head_nats: torch.Tensor | None = None


def read_out(
    tuned: Output, targets: torch.Tensor, *, base: Output | None = None, greedy: bool = False
) -> TokenScores:
    """Score targets under the model's head, and against the base where it is given.

    Args:
        tuned: the model's states and head.
        targets: token ids, (tokens,), int64.
        base: the base's states at the same positions, and its head.
        greedy: whether to say which targets are the likeliest tokens.
    """
    other_head = base is not None and not torch.equal(base.head, tuned.head)
    parts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(targets), POSITIONS):
        chosen = slice(start, start + POSITIONS)
        wanted = targets[chosen, None]
        own = _log_probabilities(tuned.states[chosen], tuned.head)  # (positions, vocabulary)
        found = {"nats": -own.gather(-1, wanted)[:, 0]}
        if greedy:
            found["greedy"] = own.argmax(-1) == targets[chosen]
        if base is not None:
            reference = _log_probabilities(base.states[chosen], base.head)
            shares = reference.exp()
            found["base_nats"] = -reference.gather(-1, wanted)[:, 0]
            found["kl"] = (shares * (reference - own)).sum(-1)
            found["base_entropy"] = -(shares * reference).sum(-1)
            found["agreement"] = own.argmax(-1) == reference.argmax(-1)
        if base is not None and other_head:
            under_base = _log_probabilities(tuned.states[chosen], base.head)
            found["base_head_nats"] = -under_base.gather(-1, wanted)[:, 0]
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    return TokenScores(**{name: torch.cat(values) for name, values in parts.items()})


def _log_probabilities(states: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Apply the head: (positions, hidden) -> (positions, vocabulary), float32."""
    return torch.log_softmax(product(states, head.T).float(), dim=-1)
