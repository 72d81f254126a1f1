"""Score every token of every document once, under the language model that the trunk was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from peftune.models.parts import BAR, evaluating, trunk_of
from peftune.models.tokenizer import encode_texts

_HEAD_POSITIONS = 512
"""Positions to which the vocabulary-sized head is applied at a time; bounds memory, not results."""


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Cover the targets `0 … length - 1` exactly once with overlapping windows.

    Yields:
        `(begin, done, end)`: feed `([prefix] + tokens)[begin:end]`, score `tokens[done:end]`.
    """
    done = 0
    while done < length:
        end = min(length, window) if done == 0 else min(length, done + stride)
        yield max(0, end - window), done, end
        done = end


@dataclass(frozen=True, slots=True)
class _Piece:
    """One window of one document: what is fed, and which trailing tokens of it are scored."""

    document: int
    inputs: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LanguageModelScorer:
    """Read a (fine-tuned) trunk as the language model it was, through the tied embedding.

    GPT-2 ties its output head to the token embedding, so the head that a classifier dropped is
    still in the trunk, and re-attaching it gives the language model exactly.

    Args:
        model: any model around a GPT-2 trunk; it is scored as it is when a method is called.
        tokenizer: its tokenizer, which pads on the right.
        batch_size: windows in one forward pass; fixed, since int8 results depend on the batch.
        window: most tokens of context; at most the model's positions.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 16
    window: int = 1024

    def protocol(self) -> dict[str, Any]:
        """Describe how documents are scored, with a hash of the description."""
        window = self._window()
        facts = {
            "prefix": "end token",
            "window": window,
            "stride": max(1, window // 2),
            "batch_size": self.batch_size,
            "batches": "windows sorted by length",
            "padding": "right",
            "head": "tied embedding",
            "logits": "float32",
            "sums": "float64",
            "aggregation": "sum over tokens / sum over bytes",
        }
        return {
            **facts,
            "sha256": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        }

    def nats(self, documents: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Score every token of every document once; no special token is read from the text.

        Returns:
            Negative log-likelihood in nats, (documents,), float64, and tokens, (documents,), int64.
        """
        encoded = encode_texts(self.tokenizer, list(documents), max_length=None)
        pieces = sorted(
            self._pieces(encoded), key=lambda piece: (len(piece.inputs), piece.document)
        )
        totals = np.zeros(len(documents), dtype=np.float64)
        with evaluating(self.model):
            starts = range(0, len(pieces), self.batch_size)
            for start in tqdm(starts, desc="scoring text", **BAR):
                batch = pieces[start : start + self.batch_size]
                for piece, nats in zip(batch, self._score(batch), strict=True):
                    totals[piece.document] += nats
        return totals, np.array([len(ids) for ids in encoded], dtype=np.int64)

    def _window(self) -> int:
        return min(self.window, int(trunk_of(self.model).config.n_positions))

    def _pieces(self, encoded: Sequence[Sequence[int]]) -> Iterator[_Piece]:
        window = self._window()
        for document, ids in enumerate(encoded):
            fed = (self.tokenizer.eos_token_id, *ids)
            for begin, done, end in windows(len(ids), window, max(1, window // 2)):
                yield _Piece(document, tuple(fed[begin:end]), tuple(ids[done:end]))

    def _score(self, batch: Sequence[_Piece]) -> list[float]:
        """Sum the nats of each window's targets; pads stand on the right and are never scored."""
        trunk = trunk_of(self.model)
        embedding = trunk.wte.weight
        longest = max(len(piece.inputs) for piece in batch)
        pad = self.tokenizer.pad_token_id
        rows = [[*piece.inputs, *[pad] * (longest - len(piece.inputs))] for piece in batch]
        inputs = torch.tensor(rows, device=embedding.device)  # (batch, time)
        # Causal attention never looks right, so right padding needs no mask.
        mask = torch.ones_like(inputs)
        hidden = trunk(input_ids=inputs, attention_mask=mask, use_cache=False).last_hidden_state
        states = torch.cat(
            [
                hidden[row, len(piece.inputs) - len(piece.targets) : len(piece.inputs)]
                for row, piece in enumerate(batch)
            ]
        )
        targets = torch.tensor(
            [token for piece in batch for token in piece.targets], device=embedding.device
        )
        nats = _token_nats(states, embedding, targets).double().cpu()
        return [float(part.sum()) for part in nats.split([len(piece.targets) for piece in batch])]


def _token_nats(
    states: torch.Tensor, embedding: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Apply the tied head in chunks: (tokens, hidden) -> (tokens,), float32."""
    losses = [
        F.cross_entropy((part @ embedding.T).float(), wanted, reduction="none")
        for part, wanted in zip(
            states.split(_HEAD_POSITIONS), targets.split(_HEAD_POSITIONS), strict=True
        )
    ]
    return torch.cat(losses)
