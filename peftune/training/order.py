"""The order in which training reads its rows: decided by the seed alone, and proven by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

Row = Mapping[str, Any]


class HashedOrder:
    """Put batches together as another collator does, and hash what passes.

    Args:
        collate: what makes a batch of tokenized rows.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate
        self._digest = hashlib.sha256()

    def __call__(self, rows: list[Row]) -> Any:  # noqa: ANN401 - a batch of the inner collator
        """Hash each row's tokens and label, and where the batch ends."""
        for row in rows:
            labels = row.get("labels", row.get("label"))
            written = labels.tolist() if isinstance(labels, np.ndarray) else labels
            self._digest.update(np.asarray(row["input_ids"], dtype=np.int64).tobytes())
            self._digest.update(f"={written};".encode())
        self._digest.update(b"|")
        return self._collate(rows)

    @property
    def sha256(self) -> str:
        """Name the batches so far by one hash."""
        return self._digest.hexdigest()


class SeededOrder(Sampler[int]):
    """Group rows of like length as Trainer's own sampler does, each epoch by a seed of its own.

    Trainer's draws from the global random state, which dropout and the initialisation of an adapter
    use as well: two strategies of one seed would read the same rows in different batches.

    Args:
        grouped: Trainer's sampler.
        seed: the run's seed.
    """

    def __init__(self, grouped: LengthGroupedSampler, seed: int) -> None:
        self._grouped = grouped
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; accelerate says which one it is, after a resume too."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._grouped)

    def __iter__(self) -> Iterator[int]:
        """Go through the rows' numbers."""
        self._grouped.generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(self._grouped)
