"""The probe interface: what a probe asks of a language model, and what it gets back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Measurement:
    """One probe on one model, as sums per document.

    The value of any set of documents is `total.sum() / weight.sum()`, so a resample of documents
    is measured the same way as all of them.

    Args:
        total: numerator for each document, (documents,), float64.
        weight: denominator for each document, (documents,), float64.
        tokens: scored tokens of each document, (documents,), int64.
    """

    total: NDArray[np.float64]
    weight: NDArray[np.float64]
    tokens: NDArray[np.int64]

    @property
    def value(self) -> float:
        """The metric over all documents: the ratio of sums, never a mean of ratios."""
        return float(self.total.sum() / self.weight.sum())


class LanguageModel(Protocol):
    """What a probe may ask of a model."""

    def protocol(self) -> dict[str, Any]:
        """Describe how documents are scored: prefix, window, stride, batches, precision."""

    def nats(self, documents: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Score every token of every document once.

        Returns:
            Negative log-likelihood in nats, (documents,), float64, and tokens, (documents,), int64.
        """


class Probe(BaseModel, ABC):
    """A held-out general ability, measured before and after fine-tuning.

    Its fields say which text it reads; a subclass says what it measures there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: ClassVar[str]
    """How recipes call the probe; equal to its entry-point name."""

    metric: ClassVar[str]
    """What the value is called, such as `bits_per_byte`."""

    unit: ClassVar[str]
    """Unit of the value, such as `bits/byte`."""

    name: str | None = Field(
        None, min_length=1, description="Name in reports; otherwise the name of the text."
    )
    dataset_name: str | None = Field(
        None, description="bundled:general-text, a hub id, or a saved datasets folder."
    )
    dataset_config_name: str | None = Field(None, description="Configuration of the hub data set.")
    split: str = Field("test", description="Split of the hub data set.")
    text_column: str = Field("text", description="Column that holds one document a row.")
    file: str | None = Field(
        None,
        description="A .jsonl (field `text`) or .txt file (documents separated by form feeds, or by blank lines); relative to the recipe.",
    )
    max_documents: int | None = Field(
        None, gt=0, description="Use at most this many documents, chosen evenly over the text."
    )

    @model_validator(mode="after")
    def _reads_one_text(self) -> Probe:
        if (self.dataset_name is None) == (self.file is None):
            message = "needs either 'dataset_name' or 'file', and not both"
            raise ValueError(message)
        return self

    @property
    def label(self) -> str:
        """The probe's name in reports."""
        if self.name is not None:
            return self.name
        if self.file is not None:
            return PurePath(self.file).stem
        return str(self.dataset_name).rsplit(":", 1)[-1].rsplit("/", 1)[-1]

    @abstractmethod
    def measure(self, model: LanguageModel, documents: Sequence[str]) -> Measurement:
        """Measure the ability on every document; lower values are better."""

    def fields(self) -> dict[str, Any]:
        """Return the type and every field, ready for a recipe."""
        return {"type": self.type, **self.model_dump(mode="json")}
