"""Score texts with the language model of a backbone: windows, token scores, batches, a shared prefix."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from peftune.fastpath.scoring import product, reading_fast
from peftune.models.architecture import backbone_of, evaluating
from peftune.models.tokenizer import encode_texts
from peftune.probes import BaseScores, ContinuationScores, TextScores
from peftune.progress import counted


@dataclass(frozen=True, slots=True)
class Piece:
    """The input of one forward pass of one document, and the tokens that its last positions predict.

    Args:
        document: index of the document.
        inputs: token ids of the input.
        targets: token ids that the last `len(targets)` positions predict.
    """

    document: int
    inputs: tuple[int, ...]
    targets: tuple[int, ...]


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


def text_pieces(
    encoded: Sequence[Sequence[int]], *, prefix: int, window: int, stride: int
) -> Iterator[Piece]:
    """Cut documents into windows, each document after a prefix token."""
    for document, ids in enumerate(encoded):
        fed = (prefix, *ids)
        for begin, done, end in windows(len(ids), window, stride):
            yield Piece(document, tuple(fed[begin:end]), tuple(ids[done:end]))


def continuation_piece(
    document: int, context: Sequence[int], continuation: Sequence[int], *, window: int
) -> Piece:
    """Feed a context and its continuation; a context that is too long loses its beginning.

    Raises:
        ValueError: the continuation alone is longer than the window.
    """
    if len(continuation) > window:
        message = f"a continuation of {len(continuation)} tokens is longer than the window of {window}; shorten it"
        raise ValueError(message)
    fed = (*context, *continuation)[:-1]
    return Piece(document, tuple(fed[-window:]), tuple(continuation))


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
    """Scores of every target, (tokens,) each, on the model's device.

    Args:
        nats: negative log-likelihood, float32.
        greedy: whether the target is the likeliest token, bool; None where it was not requested.
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
        greedy: whether to mark the targets that are the likeliest tokens.
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


_SHORTEST = 16
"""A shorter prefix is not shared: it saves little."""


class SharedPrefix:
    """Keys and values of the tokens that all pieces begin with.

    Args:
        model: any model around a GPT-2 backbone.
        tokens: token ids.
    """

    def __init__(self, model: nn.Module, tokens: Sequence[int]) -> None:
        self.length = len(tokens)
        backbone = backbone_of(model)
        inputs = torch.tensor([list(tokens)], device=backbone.wte.weight.device)
        with evaluating(model):
            self._cache = backbone(
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
    """Remove the first tokens from the inputs of every piece."""
    return [dataclasses.replace(piece, inputs=piece.inputs[count:]) for piece in pieces]


Reference = Callable[[], contextlib.AbstractContextManager[nn.Module]]
"""Gives the base inside a context; after it the tuned model has its own weights again."""


class LanguageModelScorer:
    """Score texts with a (fine-tuned) backbone as a language model, through the tied embedding.

    GPT-2 ties its output head to the token embedding, so the head that a classifier dropped is
    still in the backbone, and re-attaching it gives the language model exactly.

    Args:
        model: any model around a GPT-2 backbone; it is scored as it is when a method is called.
        tokenizer: its tokenizer, which pads on the right.
        reference: gives the base; with it, texts are read by both and the divergence is measured.
        batch_size: windows in one forward pass; fixed, since int8 results depend on the batch.
        window: most tokens of context; at most the model's positions.
        share_prefix: compute the common beginning of all continuations of one call once: the same
            result up to rounding, in much less time where prompts share their examples.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reference: Reference | None = None,
        batch_size: int = 16,
        window: int = 1024,
        share_prefix: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.reference = reference
        self.batch_size = batch_size
        self.window = min(window, int(backbone_of(model).config.n_positions))
        self.share_prefix = share_prefix

    def protocol(self) -> dict[str, Any]:
        """Describe how texts are scored, for the protocol of every probe."""
        return {
            "window": self.window,
            "batch_size": self.batch_size,
            "batches": "windows sorted by length",
            "padding": "right",
            "head": "tied embedding",
            "logits": "float32",
            "sums": "float64",
        }

    def score_text(
        self, documents: Sequence[str], *, disjoint_windows: bool = False
    ) -> TextScores:
        """Score every token of every document once; no special token is read from the text.

        Args:
            documents: any strings.
            disjoint_windows: windows that follow each other, rather than overlap by half.
        """
        encoded = encode_texts(self.tokenizer, list(documents), max_length=None)
        pieces = list(
            text_pieces(
                encoded,
                prefix=int(self.tokenizer.eos_token_id),
                window=self.window,
                stride=self.window if disjoint_windows else max(1, self.window // 2),
            )
        )
        sums: dict[str, NDArray[np.float64]] = {}
        for piece, scores in self._scored(pieces, paired=self.reference is not None):
            for name, value in scores.items():
                sums.setdefault(name, np.zeros(len(documents)))[piece.document] += value
        tokens = np.array([len(ids) for ids in encoded], dtype=np.int64)
        base = None
        if self.reference is not None:
            base = BaseScores(
                nats=sums["base_nats"],
                entropy=sums["base_entropy"],
                kl=sums["kl"],
                agreement=sums["agreement"],
                head_nats=sums.get("base_head_nats"),
            )
        return TextScores(sums["nats"], tokens, base)

    def score_continuations(self, pairs: Sequence[tuple[str, str]]) -> ContinuationScores:
        """Score continuations given their contexts, tokenized as one text and cut at the border.

        White space at the end of a context counts as the beginning of the continuation. An empty
        context is one end token.
        """
        pieces = [self._continuation(index, *pair) for index, pair in enumerate(pairs)]
        nats = np.zeros(len(pieces))
        greedy = np.zeros(len(pieces), dtype=np.bool_)
        shared = shared_tokens(pieces) if self.share_prefix and pieces else ()
        past = SharedPrefix(self.model, shared) if shared else None
        for piece, scores in self._scored(
            without_first(pieces, len(shared)), greedy=True, past=past
        ):
            nats[piece.document] = scores["nats"]
            greedy[piece.document] = scores["greedy"] == len(piece.targets)
        tokens = np.array([len(piece.targets) for piece in pieces], dtype=np.int64)
        return ContinuationScores(nats, tokens, greedy)

    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Average the last hidden states over each text's first window: (texts, hidden)."""
        encoded = encode_texts(self.tokenizer, list(texts), max_length=self.window)
        pieces = [Piece(index, tuple(ids), ()) for index, ids in enumerate(encoded)]
        width = int(backbone_of(self.model).config.n_embd)
        features = np.zeros((len(texts), width), dtype=np.float32)
        with evaluating(self.model):
            for batch in self._batches(pieces):
                hidden = _hidden(self.model, self._inputs(batch))
                for row, piece in enumerate(batch):
                    mean = hidden[row, : len(piece.inputs)].float().mean(0)  # (hidden,)
                    features[piece.document] = mean.cpu().numpy()
        return features

    def _continuation(self, index: int, context: str, continuation: str) -> Piece:
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        [whole] = encode_texts(self.tokenizer, [kept + continuation], max_length=None)
        if not kept:
            prefix = [int(self.tokenizer.eos_token_id)]
            return continuation_piece(index, prefix, whole, window=self.window)
        [before] = encode_texts(self.tokenizer, [kept], max_length=None)
        cut = len(before)
        return continuation_piece(index, whole[:cut], whole[cut:], window=self.window)

    def _scored(
        self,
        pieces: Sequence[Piece],
        *,
        paired: bool = False,
        greedy: bool = False,
        past: SharedPrefix | None = None,
    ) -> list[tuple[Piece, dict[str, float]]]:
        """Sum the scores of each piece; with `paired`, the base scores each batch too."""
        scored: list[tuple[Piece, dict[str, float]]] = []
        with evaluating(self.model):
            for batch in self._batches(pieces):
                found = self._score(batch, paired=paired, greedy=greedy, past=past)
                scored += zip(batch, found, strict=True)
        return scored

    def _batches(self, pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
        ordered = sorted(pieces, key=lambda piece: (len(piece.inputs), piece.document))
        batches = [
            ordered[start : start + self.batch_size]
            for start in range(0, len(ordered), self.batch_size)
        ]
        yield from counted(batches, "reading text", unit="windows", count=len)

    def _inputs(self, batch: Sequence[Piece]) -> torch.Tensor:
        """Pad a batch on the right: (batch, time), int64."""
        longest = max(len(piece.inputs) for piece in batch)
        pad = self.tokenizer.pad_token_id
        rows = [[*piece.inputs, *[pad] * (longest - len(piece.inputs))] for piece in batch]
        return torch.tensor(rows, device=backbone_of(self.model).wte.weight.device)

    def _score(
        self, batch: Sequence[Piece], *, paired: bool, greedy: bool, past: SharedPrefix | None
    ) -> list[dict[str, float]]:
        """Score each piece's targets; pads stand on the right and are never scored."""
        inputs = self._inputs(batch)
        targets = torch.tensor(
            [token for piece in batch for token in piece.targets], device=inputs.device
        )
        tuned = _output(self.model, inputs, batch, past)
        base = None
        if paired and self.reference is not None:
            with self.reference() as base_model, evaluating(base_model):
                base = _output(base_model, inputs, batch)
        scores = read_out(tuned, targets, base=base, greedy=greedy)
        return _sums(scores, [len(piece.targets) for piece in batch])


def _hidden(
    model: nn.Module, inputs: torch.Tensor, past: SharedPrefix | None = None
) -> torch.Tensor:
    # Causal attention never looks right, so right padding needs no mask.
    rows, time = inputs.shape
    mask = inputs.new_ones(rows, time + (past.length if past else 0))
    with reading_fast(model):
        hidden: torch.Tensor = backbone_of(model)(
            input_ids=inputs,
            attention_mask=mask,
            past_key_values=past.repeated(rows) if past else None,
            use_cache=past is not None,
        ).last_hidden_state
    return hidden  # (batch, time, hidden)


def _output(
    model: nn.Module,
    inputs: torch.Tensor,
    batch: Sequence[Piece],
    past: SharedPrefix | None = None,
) -> Output:
    """Return the states that predict targets, and the head as it is now."""
    hidden = _hidden(model, inputs, past)
    states = [
        hidden[row, len(piece.inputs) - len(piece.targets) : len(piece.inputs)]
        for row, piece in enumerate(batch)
    ]
    return Output(torch.cat(states), backbone_of(model).wte.weight.data)


def _sums(scores: TokenScores, sizes: list[int]) -> list[dict[str, float]]:
    """Sum each quantity over the tokens of each piece, in float64."""
    values = {
        field.name: getattr(scores, field.name).double().cpu().split(sizes)
        for field in dataclasses.fields(scores)
        if getattr(scores, field.name) is not None
    }
    return [
        {name: float(parts[index].sum()) for name, parts in values.items()}
        for index in range(len(sizes))
    ]
