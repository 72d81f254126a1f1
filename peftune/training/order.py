"""The order in which training reads its rows, as a hash: equal hashes mean equal batches."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


class HashedOrder:
    """Put batches together as another collator does, and hash what passes.

    Args:
        collate: what makes a batch of tokenized rows.
    """

    def __init__(self, collate: Callable[[Sequence[Row]], Any]) -> None:
        self._collate = collate
        self._digest = hashlib.sha256()

    def __call__(self, rows: Sequence[Row]) -> Any:  # noqa: ANN401 - a batch of the inner collator
        """Hash each row's tokens and label, and where the batch ends."""
        for row in rows:
            self._digest.update(array("q", row["input_ids"]).tobytes())
            self._digest.update(f"={row.get('labels', row.get('label'))};".encode())
        self._digest.update(b"|")
        return self._collate(rows)

    @property
    def sha256(self) -> str:
        """Name the batches so far by one hash."""
        return self._digest.hexdigest()
