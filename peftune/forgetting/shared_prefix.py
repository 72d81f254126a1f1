"""A beginning that many pieces share, such as the examples of a prompt: read once for all."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import nn
from transformers import DynamicCache

from peftune.forgetting.windows import Piece
from peftune.models.parts import evaluating, trunk_of

_SHORTEST = 16
"""Fewer tokens are read again with every piece: there is little to save."""


class SharedPrefix:
    """The keys and values of tokens that all pieces begin with.

    Args:
        model: any model around a GPT-2 trunk.
        tokens: token ids.
    """

    def __init__(self, model: nn.Module, tokens: Sequence[int]) -> None:
        self.length = len(tokens)
        trunk = trunk_of(model)
        inputs = torch.tensor([list(tokens)], device=trunk.wte.weight.device)
        with evaluating(model):
            self._cache = trunk(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                past_key_values=DynamicCache(),
                use_cache=True,
            ).past_key_values

    def repeated(self, rows: int) -> DynamicCache:
        """Return a copy for a batch of that many rows, which the forward pass adds to."""
        cache: DynamicCache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def shared_tokens(pieces: Sequence[Piece]) -> tuple[int, ...]:
    """Return the tokens that every piece begins with, before any position that predicts a target."""
    inputs = [piece.inputs for piece in pieces]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(min(inputs), max(inputs), strict=False))
    unread = min(len(piece.inputs) - len(piece.targets) for piece in pieces)
    shared = tuple(token for token, _ in alike)[: max(0, unread)]
    return shared if len(shared) >= _SHORTEST else ()


def without_first(pieces: Sequence[Piece], count: int) -> list[Piece]:
    """Take the first tokens off the inputs of every piece."""
    return [dataclasses.replace(piece, inputs=piece.inputs[count:]) for piece in pieces]
