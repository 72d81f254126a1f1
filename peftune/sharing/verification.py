"""What a verification found."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

On = Literal["fp32", "int8", "merged"]
"""The base in float32, the base in int8, or one plain model: merged into the base in float32."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models lie apart.

    Args:
        largest: largest absolute difference of a logit, lower is better; of language modeling of
            a token's log-probability, in nats.
        label_flips: share of the texts of which they do not say the same labels; None where the
            task has no labels.
    """

    largest: float
    label_flips: float | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What an artifact made of its recorded texts, against the record.

    Args:
        on: what it was replayed on.
        texts: how far from the record, over the recorded texts.
        allowed: largest difference that passes.
        rows: over the rows of a file, how far from the model that it was trained as; None without
            a file, and of that model itself.
    """

    on: On
    texts: Difference
    allowed: float
    rows: Difference | None

    @property
    def passed(self) -> bool:
        """Whether it is the record again, up to what arithmetic of this precision leaves open."""
        return self.texts.largest <= self.allowed


@dataclass(frozen=True, slots=True)
class Parity:
    """How an adapter that was trained on the int8 base acts on the same base in float32.

    Args:
        texts: int8 against float32, over the recorded texts.
        rows: the same over the rows of a file; None without one.
    """

    texts: Difference
    rows: Difference | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What `peftune.verify` found.

    Args:
        artifact: how it was named.
        sha256: hash of its manifest, by which it is known.
        trained_on: precision of the base that it was trained on.
        n_texts: recorded texts.
        n_rows: rows of the file; None without one.
        replays: one for each precision, in the order asked for.
        parity: for an adapter that was trained on the int8 base; else None.
    """

    artifact: str
    sha256: str
    trained_on: On
    n_texts: int
    n_rows: int | None
    replays: tuple[Replay, ...]
    parity: Parity | None

    @property
    def passed(self) -> bool:
        """Whether every replay passed; parity is a number and decides nothing."""
        return all(replay.passed for replay in self.replays)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        values = dataclasses.asdict(self)
        replays = [
            {**found, "passed": each.passed}
            for found, each in zip(values["replays"], self.replays, strict=True)
        ]
        return {**values, "replays": replays, "passed": self.passed}
