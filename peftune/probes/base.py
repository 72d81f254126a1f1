"""The probe interface: what a probe asks of a language model, and what it gives back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from peftune.configuration import TextSource
from peftune.plugins import PluginGroup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


TOO_LARGE = "too large for a number of 64 bits"
"""Why a perplexity is None in a report."""


def perplexity(nats: float) -> float:
    """Return e to the power of a loss; infinite where no number of 64 bits is as large."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, slots=True)
class Measurement:
    """One probe on one model, as sums per document.

    The value of any set of documents is `total.sum() / weight.sum()`, so a resample of documents
    is measured the same way as all of them.

    Args:
        total: numerator for each document, (documents,), float64.
        weight: denominator for each document, (documents,), float64; 0 for a document that helped
            the measurement and is not scored itself.
        tokens: scored tokens of each document, (documents,), int64.
        extra: further sums per document, (documents,), that the probe's `details` reads.
        kl: divergence KL(base || model) in nats, (documents,), float64; None where it was not measured.
        adapter_disabled: `total` with the adapter disabled, from the same pass, (documents,), float64.
        base_head: `total` under the base's own LM head, (documents,), float64.
    """

    total: NDArray[np.float64]
    weight: NDArray[np.float64]
    tokens: NDArray[np.int64]
    extra: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    kl: NDArray[np.float64] | None = None
    adapter_disabled: NDArray[np.float64] | None = None
    base_head: NDArray[np.float64] | None = None

    @property
    def value(self) -> float:
        """The metric over all documents: the ratio of sums, never a mean of ratios."""
        return float(self.total.sum() / self.weight.sum())

    def scored(self) -> Measurement:
        """Leave out the documents of weight 0: they helped the measurement and are not evidence."""
        kept = self.weight != 0
        return Measurement(
            self.total[kept],
            self.weight[kept],
            self.tokens[kept],
            kl=None if self.kl is None else self.kl[kept],
            adapter_disabled=None
            if self.adapter_disabled is None
            else self.adapter_disabled[kept],
            base_head=None if self.base_head is None else self.base_head[kept],
            extra={name: values[kept] for name, values in self.extra.items()},
        )


@dataclass(frozen=True, slots=True)
class BaseScores:
    """What the base says of the same documents, read in the same batches, (documents,) each.

    Args:
        nats: negative log-likelihood of every token under the base, float64.
        entropy: entropy of the base's predictions in nats, float64.
        kl: divergence KL(base || model) in nats, float64.
        agreement: tokens at which both find the same token likeliest, float64.
        head_nats: the model's negative log-likelihood under the base's output head, float64; None
            where that is the model's own head.
    """

    nats: NDArray[np.float64]
    entropy: NDArray[np.float64]
    kl: NDArray[np.float64]
    agreement: NDArray[np.float64]
    head_nats: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class TextScores:
    """How a language model reads documents, as sums per document, (documents,) each.

    Args:
        nats: negative log-likelihood of every token, float64.
        tokens: tokens, each scored once, int64.
        base: what the base says of the same; None where it is not at hand.
    """

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    base: BaseScores | None = None


@dataclass(frozen=True, slots=True)
class ContinuationScores:
    """How likely a language model finds continuations, (continuations,) each.

    Args:
        nats: negative log-likelihood of the continuation given its context, float64.
        tokens: tokens of the continuation, int64.
        greedy: whether each token of the continuation is the likeliest one, bool.
    """

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    greedy: NDArray[np.bool_]


class LanguageModel(Protocol):
    """What a probe may ask of a model."""

    def score_text(
        self, documents: Sequence[str], *, disjoint_windows: bool = False
    ) -> TextScores:
        """Score every token of every document once, after an end token.

        Args:
            documents: any strings.
            disjoint_windows: read a long document in windows that follow each other, rather than
                in windows that overlap by half.
        """

    def score_continuations(self, pairs: Sequence[tuple[str, str]]) -> ContinuationScores:
        """Score the second text of each pair, read after the first; an empty first is an end token."""

    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Average the last hidden states over each text's tokens: (texts, hidden)."""


class Probe(TextSource, ABC):
    """A held-out general ability, measured before and after fine-tuning.

    Its fields say which text it reads; a subclass says what it measures there.
    """

    name: ClassVar[str]
    """How recipes call the probe; equal to its entry-point name."""

    metric: ClassVar[str]
    """What the value is called, such as `bits_per_byte`."""

    unit: ClassVar[str]
    """Unit of the value, such as `bits/byte`."""

    higher_is_better: ClassVar[bool] = False
    """Whether a larger value is a better one; forgetting is positive where the value got worse."""

    right_or_wrong: ClassVar[bool] = False
    """Whether each document counts 0 or 1; the report then adds McNemar's exact test."""

    needs_base: ClassVar[bool] = False
    """Whether it compares with the base token by token, so that `score_text` must give `base`."""

    report_name: str | None = Field(
        None,
        min_length=1,
        alias="name",
        description="Name in reports; otherwise the name of the text.",
    )
    margin: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Loss, in the probe's unit, that still counts as retained; null: no verdict.",
    )

    @property
    def label(self) -> str:
        """The probe's name in reports."""
        return self.report_name or super().label

    @abstractmethod
    def measure(self, model: LanguageModel, documents: Sequence[Any]) -> Measurement:
        """Measure the ability on every document.

        Args:
            model: the language model, before or after.
            documents: what `document` made of the rows.
        """

    def protocol(self) -> dict[str, Any]:
        """Say how this probe scores, beyond what every probe shares; part of the report's hash."""
        return {}

    def details(self, before: Measurement, after: Measurement) -> dict[str, float]:  # noqa: ARG002 - what a subclass may use
        """Return further figures for the report, such as a perplexity ratio; one that is not finite is null there."""
        return {}

    def fields(self) -> dict[str, Any]:
        """Return the type and every field, ready for a recipe."""
        return {"type": self.name, **self.model_dump(mode="json", by_alias=True)}


PROBES: PluginGroup[Probe] = PluginGroup("peftune.probes", "probe", Probe, key="type")  # type: ignore[type-abstract]


def above_chance(before: Measurement, after: Measurement, *, chance: float) -> dict[str, float]:
    """Set right answers before and after against guessing.

    Args:
        before: 1 for each document that the base gets right, 0 for the others.
        after: the same of the tuned model.
        chance: share that a guess gets right, 1/k with k options.

    Returns:
        `chance`; `headroom`, the base's share of right answers that were no luck; `forgot_true` and
        `gained_true`, the shares of documents that went from right to wrong and from wrong to
        right, less what two independent guessers would swap.

    References:
        Harmon et al. 2025, Mapping Post-Training Forgetting, arXiv:2510.17776.
    """
    count = float(before.weight.sum())
    lost = float((before.total > after.total).sum()) / count
    gained = float((after.total > before.total).sum()) / count
    # 1/(k - 1): right guesses for each wrong one. Where every guess is right, nothing can be lost.
    odds = chance / (1 - chance) if chance < 1 else 0.0
    swapped = (1 - before.value) * (1 - after.value) * odds
    return {
        "chance": chance,
        "headroom": max(0.0, (before.value - chance) / (1 - chance)) if chance < 1 else 0.0,
        "forgot_true": max(0.0, lost - swapped),
        "gained_true": max(0.0, gained - swapped),
    }
