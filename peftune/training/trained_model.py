"""The model in training as regularisers see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from peftune.data.documents import load_documents
from peftune.errors import DataError
from peftune.models.drift import squared_drift
from peftune.models.language import (
    divergence_from_base,
    fisher_information,
    language_model_loss,
    written_by_base,
)
from peftune.models.parts import head_of, trunk_of
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import encode_texts
from peftune.seeds import stream_seed
from peftune.sources import TextSource


class TrainedClassifier:
    """Answer what regularisers ask of a prepared model.

    Args:
        model: from `peftune.prepare`.
        seed: the run's seed; everything drawn here comes from a stream of its own.
        task_tokens: counts the tokens that a batch of the task has on average.
    """

    def __init__(self, model: nn.Module, *, seed: int, task_tokens: Callable[[], float]) -> None:
        self._model = model
        self._preparation = preparation_of(model)
        self._seed = stream_seed(seed, "regularizers")
        self._task_tokens = task_tokens
        self._end = int(self._preparation.tokenizer.eos_token_id)
        self._device = trunk_of(model).wte.weight.device

    def divergence(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean of KL(base || model) over all tokens, in nats, with a gradient."""
        return divergence_from_base(self._model, sequences, prefix=self._end)

    def language_loss(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean negative log-likelihood of all tokens, in nats, with a gradient."""
        return language_model_loss(self._model, sequences, prefix=self._end)

    def drift(self, importance: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the squared change of the trunk's weights since the start, with a gradient."""
        return squared_drift(self._model, self._preparation.before, importance)

    def head_norm(self) -> torch.Tensor:
        """Return the squared norm of the classification head, with a gradient; 0 where it takes no part."""
        learning = [weight for weight in head_of(self._model).parameters() if weight.requires_grad]
        norms = [weight.float().square().sum() for weight in learning]
        return torch.stack(norms).sum() if norms else torch.zeros((), device=self._device)

    def fisher(self, sequences: Sequence[Sequence[int]]) -> Mapping[str, torch.Tensor]:
        """Return the diagonal Fisher information of the base's weights, by name, a token."""
        return fisher_information(
            self._preparation.base,
            sequences,
            prefix=self._end,
            seed=self._seed,
            device=self._device,
        )

    def sequences_of(self, source: TextSource, *, length: int) -> list[list[int]]:
        """Read a text as consecutive sequences of exactly `length` tokens, end tokens between.

        Raises:
            DataError: the text is too short for one sequence, or the model for the length.
        """
        self._check_length(length)
        documents = encode_texts(
            self._preparation.tokenizer, list(load_documents(source)), max_length=None
        )
        stream = [token for ids in documents for token in (*ids, self._end)]
        found = [
            stream[start : start + length] for start in range(0, len(stream) - length + 1, length)
        ]
        if not found:
            message = f"'{source.label}' has {len(stream)} tokens, too few for one sequence of {length}. Give a longer text, or a smaller length."
            raise DataError(message)
        return found

    def generated(self, count: int, *, length: int) -> list[list[int]]:
        """Let the base write sequences of `length` tokens, sampled at temperature 1."""
        self._check_length(length)
        return written_by_base(
            self._preparation.base,
            count,
            length=length,
            prefix=self._end,
            seed=self._seed,
            device=self._device,
        )

    def task_tokens(self) -> float:
        """Return how many tokens a batch of the task has on average."""
        return self._task_tokens()

    def chosen(
        self, sequences: Sequence[Sequence[int]], count: int, *, draw: int
    ) -> list[Sequence[int]]:
        """Draw `count` of the sequences at random, by the seed of the run and the draw."""
        generator = torch.Generator().manual_seed(self._seed + draw)
        picked = torch.randint(len(sequences), (count,), generator=generator)
        if count <= len(sequences):
            picked = torch.randperm(len(sequences), generator=generator)[:count]
        return [sequences[index] for index in picked.tolist()]

    def _check_length(self, length: int) -> None:
        positions = int(trunk_of(self._model).config.n_positions)
        if length > positions:
            message = f"A regularizer's length must be at most the {positions} positions of '{self._preparation.base.name}' (got {length})."
            raise DataError(message)
