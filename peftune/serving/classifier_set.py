"""Several classifiers that share one base: one at a time, or mixed in a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from peftune.artifacts.classifier import Classifier, Text, whole_texts
from peftune.artifacts.columns import cleaned_for
from peftune.errors import UsageError, suggestion
from peftune.models.batches import MOST_ROWS, padded, plan_batches
from peftune.models.parts import evaluating
from peftune.models.tokenizer import encode_texts
from peftune.serving.shared_base import SharedBase
from peftune.tasks.predictions import Prediction

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClassifierSet(Mapping[str, Classifier]):
    """Classifiers by name, on one base that is in memory once.

    A mapping: `set["a"]` is a classifier like any that `peftune.load` returns.

    Args:
        classifiers: each one by itself.
        shared: the base with all adapters.
    """

    classifiers: Mapping[str, Classifier]
    shared: SharedBase

    def __getitem__(self, name: str) -> Classifier:
        """Return one of them as a plain classifier."""
        return self.classifiers[name]

    def __iter__(self) -> Iterator[str]:
        """Give the names."""
        return iter(self.classifiers)

    def __len__(self) -> int:
        """Count the classifiers."""
        return len(self.classifiers)

    def __repr__(self) -> str:
        """Show the names."""
        return f"{type(self).__name__}({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order in which the adapters were given."""
        return tuple(self.classifiers)

    def labels_of(self, name: str) -> tuple[str, ...]:
        """Return the label names of one of them, in the order of their ids.

        Raises:
            UsageError: there is none of that name.
        """
        return self._one(name).labels

    def predict(
        self,
        texts: Sequence[Text],
        *,
        adapter: str | None = None,
        adapters: Sequence[str] | None = None,
        batch_size: int = MOST_ROWS,
    ) -> list[Prediction]:
        """Say of each text, in order, what its adapter says of it.

        Args:
            texts: strings, or pairs of strings for an adapter of text pairs.
            adapter: the one that reads all texts.
            adapters: the one that reads each text, in their order.
            batch_size: texts in one forward pass at most; fewer where they are long.

        Raises:
            UsageError: an adapter is unknown, or neither or both of `adapter` and `adapters` are
                given.
        """
        if adapters is None:
            return self._single(adapter).predict(texts, batch_size=batch_size)
        rows = self.logits(texts, adapter=adapter, adapters=adapters, batch_size=batch_size)
        return [
            self.classifiers[name].says(row[None])[0]
            for name, row in zip(adapters, rows, strict=True)
        ]

    @overload
    def logits(
        self,
        texts: Sequence[Text],
        *,
        adapter: str,
        adapters: None = None,
        batch_size: int = MOST_ROWS,
    ) -> Logits: ...

    @overload
    def logits(
        self,
        texts: Sequence[Text],
        *,
        adapter: str | None = None,
        adapters: Sequence[str],
        batch_size: int = MOST_ROWS,
    ) -> list[Logits]: ...

    def logits(
        self,
        texts: Sequence[Text],
        *,
        adapter: str | None = None,
        adapters: Sequence[str] | None = None,
        batch_size: int = MOST_ROWS,
    ) -> Logits | list[Logits]:
        """Return raw scores: (texts, labels) of one adapter, or (labels,) for each text of several.

        Args:
            texts: strings, or pairs of strings for an adapter of text pairs.
            adapter: the one that reads all texts.
            adapters: the one that reads each text, in their order.
            batch_size: texts in one forward pass at most; fewer where they are long.

        Raises:
            UsageError: an adapter is unknown, or neither or both of `adapter` and `adapters` are
                given.
        """
        if adapters is None:
            return self._single(adapter).logits(texts, batch_size=batch_size)
        if adapter is not None:
            message = (
                "adapter= reads all texts and adapters= each text by its own; pass one of them."
            )
            raise UsageError(message)
        whole = whole_texts(texts)
        if isinstance(adapters, str) or len(adapters) != len(whole):
            message = f"adapters= takes one name for each text (got {len(adapters)} for {len(whole)} texts); for one adapter write adapter=…."
            raise UsageError(message)
        for name in dict.fromkeys(adapters):
            self._one(name)
        return self._mixed(whole, adapters, batch_size)

    def _single(self, adapter: str | None) -> Classifier:
        if adapter is None:
            message = f"Say which adapter reads the texts: adapter=… for all, or adapters=[…] with one for each. {suggestion('', self.names)}"
            raise UsageError(message)
        return self._one(adapter)

    def _one(self, name: str) -> Classifier:
        if name not in self.classifiers:
            message = f"There is no adapter '{name}' here. {suggestion(name, self.names)}"
            raise UsageError(message)
        return self.classifiers[name]

    def _mixed(
        self, texts: Sequence[str], adapters: Sequence[str], batch_size: int
    ) -> list[Logits]:
        """Score each text by its own adapter; those that mix share their passes."""
        tokenizer = next(iter(self.classifiers.values())).tokenizer
        cleaned = [
            cleaned_for(self.classifiers[name].manifest, [text])[0]
            for text, name in zip(texts, adapters, strict=True)
        ]
        whole = encode_texts(tokenizer, cleaned, max_length=None)
        encoded = [
            ids[: self.classifiers[name].max_length]
            for ids, name in zip(whole, adapters, strict=True)
        ]
        model = self.shared.model
        device = next(model.parameters()).device
        rows: dict[int, Logits] = {}
        with evaluating(model):
            for pool in self._pools(adapters):
                lengths = [len(encoded[place]) for place in pool]
                for batch in plan_batches(lengths, device, rows=batch_size):
                    chosen = [pool[place] for place in batch]
                    inputs = padded(
                        [encoded[place] for place in chosen],
                        pad_token_id=int(tokenizer.pad_token_id),
                        device=device,
                    )
                    found = self.shared.logits(inputs, [adapters[place] for place in chosen])
                    rows.update(
                        zip(chosen, (row.float().cpu().numpy() for row in found), strict=True)
                    )
        _refuse_not_finite(rows.values())
        return [rows[place] for place in range(len(texts))]

    def _pools(self, adapters: Sequence[str]) -> Iterable[list[int]]:
        """Put the places together whose texts may share a pass."""
        pools: dict[str | None, list[int]] = {}
        for place, name in enumerate(adapters):
            pools.setdefault(None if self.shared.seats[name].mixes else name, []).append(place)
        return pools.values()


def _refuse_not_finite(rows: Iterable[Logits]) -> None:
    count = sum(not np.isfinite(row).all() for row in rows)
    if count:
        message = f"the model gives a logit that is not finite for {count} texts"
        raise FloatingPointError(message)
