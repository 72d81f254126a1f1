"""The regularizer interface: what a term of the loss may ask of the model in training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from peftune.configuration import Configuration, TextSource
from peftune.plugins import PluginGroup

if TYPE_CHECKING:
    import torch


class Penalty(Protocol):
    """A regularizer at work: called once for each batch that the task's loss is taken of."""

    def __call__(self, batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor | None:
        """Return the term, a scalar with a gradient, before its weight; None adds nothing.

        Args:
            batch: `input_ids` and `attention_mask` of the task, (batch, time), int64.
            draw: number of the batch since training began, the same after a resume; whatever is
                random in the term is drawn from it.
        """


class TrainedModel(Protocol):
    """What a regularizer may ask of the model in training.

    Both the model and its base are read without dropout, and no random state is used up, so a
    term that is zero leaves training as it was, bit for bit.
    """

    def divergence(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean of KL(base || model) over all tokens, in nats, with a gradient.

        Args:
            sequences: token ids; a prefix of one end token is fed before each.
        """

    def language_loss(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean negative log-likelihood of all tokens, in nats, with a gradient."""

    def drift(self, importance: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the squared change of the backbone's weights since the start, with a gradient.

        Args:
            importance: weight of each number's square, by the base's name of the tensor; without
                it all count alike.
        """

    def head_norm(self) -> torch.Tensor:
        """Return the squared norm of the classification head, with a gradient."""

    def fisher(self, sequences: Sequence[Sequence[int]]) -> Mapping[str, torch.Tensor]:
        """Return the diagonal Fisher information of the base's weights, by name, a token.

        The next tokens are drawn from the base's own predictions at every position.
        """

    def sequences_of(self, source: TextSource, *, length: int) -> list[list[int]]:
        """Read a text as consecutive sequences of exactly `length` tokens, end tokens between."""

    def generated(self, count: int, *, length: int) -> list[list[int]]:
        """Let the base write sequences of `length` tokens, sampled at temperature 1."""

    def task_tokens(self) -> float:
        """Return how many tokens a batch of the task has on average."""

    def chosen(
        self, sequences: Sequence[Sequence[int]], count: int, *, draw: int
    ) -> list[Sequence[int]]:
        """Draw `count` of the sequences at random, by the seed of the run and the draw."""


class Regularizer(Configuration, ABC):
    """A term of the loss that holds forgetting down; no strategy knows of it.

    Its fields are its configuration. The loss of a batch becomes the task's loss plus `weight`
    times what `begin`'s penalty returns; with a weight of zero nothing is computed.
    """

    name: ClassVar[str]
    """How recipes call the regularizer; equal to its entry-point name."""

    weight: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Factor of the term in the loss: more holds more, and may learn less; 0 is off.",
    )

    @abstractmethod
    def begin(self, model: TrainedModel) -> Penalty:
        """Get ready before the first step, and return what is called at each one.

        Raises:
            PeftuneError: the model or the text does not fit.
        """

    def sources(self) -> dict[str, TextSource]:
        """Return the texts that it reads, by field; they must share nothing with a probe's."""
        return {name: value for name, value in self if isinstance(value, TextSource)}

    def fields(self) -> dict[str, Any]:
        """Return the type and every field, ready for a recipe."""
        return {"type": self.name, **self.model_dump(mode="json")}


REGULARIZERS: PluginGroup[Regularizer] = PluginGroup(
    "peftune.regularizers",
    "regularizer",
    Regularizer,  # type: ignore[type-abstract]
    key="type",
)
