"""Which batches a training would read: as the data's own tokens make them, or the longest there can be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase
from transformers.trainer_pt_utils import LengthGroupedSampler

from peftune.bundled import is_bundled
from peftune.data.task_data import load_task
from peftune.recipe import Recipe
from peftune.recipe.data import DataSection
from peftune.recipe.training import TrainingSection
from peftune.seeds import stream_seed
from peftune.training.train import way_of

_CHEAP = 64 * 2**20
"""Bytes of data up to which they are read: that takes some seconds."""

_EPOCHS = 3
"""Epochs whose batches are looked at; the lengths of later ones are like them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The shape of one forward pass.

    Args:
        rows: texts.
        time: tokens of the longest one, to which the others are padded.
    """

    rows: int
    time: int

    @property
    def tokens(self) -> int:
        """How many tokens are computed, padding counted."""
        return self.rows * self.time


@dataclass(frozen=True, slots=True)
class Batches:
    """What a training reads.

    Args:
        training: forward passes of the training, in their order; of at most three epochs.
        evaluation: forward passes of an evaluation, the largest one first.
        epoch: forward passes of one epoch; None where the rows are not known.
        mean_tokens: of a row of a training batch, without padding.
        labels: names of the labels.
        source: where the lengths come from, in a sentence.
    """

    training: Sequence[Batch]
    evaluation: Sequence[Batch]
    epoch: int | None
    mean_tokens: float
    labels: tuple[str, ...]
    source: str

    @property
    def largest(self) -> Batch:
        """The forward pass of a training step with the most tokens."""
        return max(self.training, key=lambda batch: batch.tokens)

    @property
    def usual(self) -> Batch:
        """A forward pass with as many tokens as they have in the mean."""
        rows = max(batch.rows for batch in self.training)
        tokens = sum(batch.tokens for batch in self.training) / len(self.training)
        return Batch(rows, max(1, round(tokens / rows)))


def read_batches(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Batches:
    """Read how long the texts of a resolved recipe are, if that is quick, and make batches of them.

    Args:
        recipe: which rows, and in which batches.
        tokenizer: of the base.

    Raises:
        DataError: the rows cannot be used.
    """
    section, longest = recipe.training, recipe.model.max_length
    reason = _why_not_read(recipe.data)
    if reason is not None:
        return Batches(
            training=[Batch(section.per_device_train_batch_size, longest)],
            evaluation=[Batch(section.per_device_eval_batch_size, longest)],
            epoch=None,
            mean_tokens=longest,
            labels=recipe.data.labels or ("0", "1"),
            source=f"every text is taken to have max_length tokens ({longest}): {reason}",
        )
    task = load_task(recipe.data, recipe.task, with_test=False)
    read = way_of(recipe.task_type).tokens
    learned, chosen_by = (
        read(rows, tokenizer, max_length=longest).dataset["length"]
        for rows in (task.train, task.validation)
    )
    lengths, evaluated = list(learned), list(chosen_by)
    return Batches(
        training=_training(lengths, section),
        evaluation=_evaluation(evaluated, section.per_device_eval_batch_size),
        epoch=math.ceil(len(lengths) / section.per_device_train_batch_size),
        mean_tokens=sum(lengths) / len(lengths),
        labels=task.labels,
        source=f"lengths of the {len(lengths):,} training rows: {sum(lengths) / len(lengths):.0f} tokens in the mean, {max(lengths)} at most",
    )


def _why_not_read(section: DataSection) -> str | None:
    """Say why the rows are not read; None where they are."""
    name = section.dataset_name
    if name is not None and is_bundled(name):
        return None
    if name is not None and not Path(name).is_dir():
        return None if _is_cached(name) else f"'{name}' is not on this machine yet"
    named = (name, section.train_file, section.validation_file)
    if sum(_bytes_of(Path(path)) for path in named if path is not None) > _CHEAP:
        return "the data are large, and are not read for a plan"
    return None


def _is_cached(name: str) -> bool:
    import datasets

    return (Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir()


def _bytes_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _training(lengths: Sequence[int], section: TrainingSection) -> list[Batch]:
    """Put rows into batches as the Trainer does, epoch by epoch, up to the last step."""
    size = section.per_device_train_batch_size
    batches = itertools.chain.from_iterable(
        _batches([lengths[row] for row in _order(lengths, section, epoch)], size)
        for epoch in range(_EPOCHS)
    )
    passes = math.ceil(section.num_train_epochs * math.ceil(len(lengths) / size))
    if section.max_steps > 0:
        passes = section.max_steps * section.gradient_accumulation_steps
    return list(itertools.islice(batches, passes))


def _order(lengths: Sequence[int], section: TrainingSection, epoch: int) -> Sequence[int]:
    generator = torch.Generator().manual_seed(stream_seed(section.seed, "training") + epoch)
    if section.train_sampling_strategy == "random":
        order: list[int] = torch.randperm(len(lengths), generator=generator).tolist()
        return order
    size = section.per_device_train_batch_size * section.gradient_accumulation_steps
    return list(LengthGroupedSampler(size, lengths=list(lengths), generator=generator))


def _evaluation(lengths: Sequence[int], size: int) -> list[Batch]:
    batches = _batches(sorted(lengths, reverse=True), size)
    return sorted(batches, key=lambda batch: -batch.tokens)


def _batches(lengths: Sequence[int], size: int) -> Iterator[Batch]:
    for start in range(0, len(lengths), size):
        chosen = lengths[start : start + size]
        yield Batch(len(chosen), max(chosen))
