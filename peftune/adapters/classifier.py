"""A loaded classifier: texts in, predictions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune import adapters
from peftune.adapters.manifest import Manifest
from peftune.data.cleaning import cleaned_text
from peftune.data.rows import Strings
from peftune.data.text_column import TextColumns, pair_of, read_texts
from peftune.display import Block, Displayed
from peftune.errors import UsageError
from peftune.models.inference import MOST_ROWS, predict_logits
from peftune.recipe.task_type import TaskName
from peftune.tasks import methods_of
from peftune.tasks.base import Prediction


def columns_of(manifest: Manifest | None, *, text_column: str | None = None) -> TextColumns:
    """Return the columns of which a text is made; `text` by default.

    Args:
        manifest: what the artifact says of itself.
        text_column: a column in the place of those that it was trained on.
    """
    if text_column is not None:
        return TextColumns(text_column)
    recorded = _recorded(manifest)
    return TextColumns(
        recorded.get("text_column", "text"),
        recorded.get("text_pair_column"),
        recorded.get("template"),
    )


def read_rows(file: Path, manifest: Manifest, text_column: str | None) -> Sequence[str]:
    """Read the texts of a file, by the columns that an artifact was trained on.

    Raises:
        DataError: the file cannot be used.
        UsageError: it has no rows.
    """
    rows = read_texts(file, columns_of(manifest, text_column=text_column))
    if not len(rows):
        message = f"'{file}' has no rows. Name a file with texts."
        raise UsageError(message)
    return rows


def cleaned_for(manifest: Manifest | None, texts: Sequence[str]) -> Sequence[str]:
    """Clean texts as those were cleaned that an artifact was trained on; most were not.

    Args:
        manifest: what the artifact says of itself.
        texts: as they are written. Rows of a recipe are cleaned already, and are not cleaned
            again: an entity in an entity would become a sign.
    """
    steps = manifest.clean if manifest is not None else None
    if not steps:
        return texts
    if isinstance(texts, Strings):
        return texts.mapped(lambda text: cleaned_text(text, steps))
    return [cleaned_text(text, steps) for text in texts]


def label_column_of(
    manifest: Manifest | None, *, label_column: str | None = None
) -> str | Sequence[str]:
    """Return the column, or columns, of the labels; `label` by default."""
    found: str | Sequence[str] = label_column or _recorded(manifest).get("label_column", "label")
    return found


def _recorded(manifest: Manifest | None) -> dict[str, Any]:
    task = manifest.task if manifest is not None else None
    columns: dict[str, Any] = (task or {}).get("columns", {})
    return columns


Text = str | tuple[str, str]
"""A text, or the two of a pair."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Classifier(Displayed):
    """A model with all that it takes to classify a text as it was trained to.

    Args:
        model: the sequence classifier, in eval mode.
        tokenizer: its tokenizer.
        labels: label names in the order of their ids.
        max_length: tokens kept of each text.
        manifest: what its artifact says of it.
        artifact: where it was loaded from: a folder, or `user/name@commit`; None for a model that
            was not loaded.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_length: int
    manifest: Manifest | None = None
    artifact: str | None = None

    @classmethod
    def from_pretrained(
        cls, artifact: str | Path, *, base: str | None = None, use_cpu: bool = False
    ) -> Classifier:
        """Load a classifier, as `peftune.load` does.

        Args:
            artifact: a run folder, an adapter or model folder, or `user/name@commit` on the hub.
            base: where the base lies, if not under the name in the manifest.
            use_cpu: stay on the CPU even where there is a GPU.
        """
        return adapters.load(artifact, base=base, use_cpu=use_cpu)

    def push_to_hub(
        self, repository: str, *, private: bool = False, base: str | None = None
    ) -> str:
        """Push the artifact that was loaded, as `peftune.adapters.push` does.

        Args:
            repository: `user/name`.
            private: make a new repository private.
            base: where the base lies, if not under the name in the manifest.

        Returns:
            `user/name@commit`, which `peftune.load` takes.

        Raises:
            UsageError: the classifier was not loaded from an artifact.
        """
        if self.artifact is None:
            message = "This classifier was not loaded from an artifact. Save the model with peftune.save, and push the folder with peftune.adapters.push."
            raise UsageError(message)
        return adapters.push(self.artifact, repository, private=private, base=base)

    def _blocks(self) -> Iterator[Block]:
        yield f"{type(self).__name__} of {self.artifact or 'a model that was not loaded'}"
        yield f"{self.task}: {', '.join(self.labels)}; up to {self.max_length} tokens"

    def predict(self, texts: Sequence[Text], *, batch_size: int = MOST_ROWS) -> list[Prediction]:
        """Say of each text, in order, its label, its labels, or its number.

        Args:
            texts: strings, or pairs of strings for a model of text pairs.
            batch_size: texts in one forward pass at most; fewer where they are long.

        Raises:
            UsageError: `texts` is one string instead of a list of them, or holds something else.
        """
        return self.says(self.logits(texts, batch_size=batch_size))

    def says(self, logits: NDArray[np.float32]) -> list[Prediction]:
        """Say what logits mean, (texts, labels)."""
        return methods_of(self.task).predictions(
            logits,
            names=self.labels,
            thresholds=self.manifest.label_thresholds if self.manifest else None,
        )

    @property
    def task(self) -> TaskName:
        """The task type that it was trained for."""
        return self.manifest.task_name if self.manifest else "single-label"

    def logits(self, texts: Sequence[Text], *, batch_size: int = MOST_ROWS) -> NDArray[np.float32]:
        """Return raw scores, (texts, labels), float32.

        Texts are cleaned first as those were that it was trained on: `clean` of its manifest.
        """
        return predict_logits(
            self.model,
            self.tokenizer,
            cleaned_for(self.manifest, whole_texts(texts)),
            max_length=self.max_length,
            batch_size=batch_size,
        )


def whole_texts(texts: Sequence[Text]) -> list[str]:
    """Return what a model reads of texts or pairs.

    Raises:
        UsageError: it is one string instead of a list of them, or holds something else.
    """
    if isinstance(texts, str):
        message = (
            "predict takes a list of strings (got one string); for one text write predict([text])."
        )
        raise UsageError(message)
    if not isinstance(texts, Iterable):
        message = f"predict takes a list of strings (got {type(texts).__name__})."
        raise UsageError(message)
    return [_whole(text, index) for index, text in enumerate(texts)]


def _whole(text: object, index: int) -> str:
    if isinstance(text, str):
        return text
    if isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):  # noqa: PLR2004 - a pair
        return pair_of(*text)
    message = f"predict takes a list of strings (got {type(text).__name__} at index {index})."
    raise UsageError(message)
