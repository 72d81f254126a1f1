"""What passes need beside the weights, as formulas that hold for any batch, depth and width."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from peftune.planning.batches import Batch


@dataclass(frozen=True, slots=True)
class Formula:
    """Bytes of a batch: `fixed + tokens * linear + tokens * time * square`."""

    fixed: float
    linear: float
    square: float = 0.0

    def at(self, batch: Batch) -> int:
        """Return the bytes of a batch."""
        each = self.linear + self.square * batch.time
        return max(0, round(self.fixed + batch.tokens * each))

    def plus(self, other: Formula, times: int) -> Formula:
        """Add another one, several times."""
        return Formula(
            self.fixed + times * other.fixed,
            self.linear + times * other.linear,
            self.square + times * other.square,
        )

    def wider(self, times: float) -> Formula:
        """Carry it over to a wider shape, of as many more heads.

        A token has so many more numbers, and attention so many more heads; what does not depend on
        the batch is made of weights, which grow with the square of the width.
        """
        return Formula(self.fixed * times**2, self.linear * times, self.square * times)


@dataclass(frozen=True, slots=True)
class Training:
    """What a forward and backward pass needs beside the weights and gradients.

    Args:
        saved: bytes that the forward pass keeps for the backward pass.
        temporary: bytes that are needed for a moment on top of that.
        laid_out: bytes of copies of weights that are made at the first pass and stay.
        products: for which oneDNN makes machine code at each length.
        lean: whether peftune computes it, and not the model's own forward.
    """

    saved: Formula
    temporary: Formula
    laid_out: int
    products: int
    lean: bool

    def at(self, batch: Batch) -> int:
        """Return the most bytes that a pass of a batch needs."""
        return self.saved.at(batch) + self.temporary.at(batch)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a forward pass without gradients needs beside the weights.

    Args:
        temporary: bytes that are needed for a moment.
        products: for which oneDNN makes machine code at each length.
        lean: whether peftune computes it, and not the model's own forward.
    """

    temporary: Formula
    products: int
    lean: bool


@dataclass(frozen=True, slots=True)
class Passes:
    """What passes of a shape need."""

    training: Training
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Sampled:
    """Passes through a sample of a narrow shape's blocks.

    Args:
        once: through the sample.
        pairs: through the sample with a second block of each kind that there are more of.
        evaluation: through the sample.
    """

    once: Training
    pairs: Sequence[Training]
    evaluation: Evaluation

    def of(self, more: Sequence[int], *, wider: float) -> Passes:
        """Add up passes through all blocks of a shape.

        Args:
            more: how many more than one there are of each of these kinds.
            wider: by how much the shape is wider than the narrow one.
        """
        saved, laid_out = self.once.saved, self.once.laid_out
        for pair, times in zip(self.pairs, more, strict=True):
            saved = saved.plus(pair.saved.plus(self.once.saved, -1), times)
            laid_out += times * (pair.laid_out - self.once.laid_out)
        return Passes(
            dataclasses.replace(
                self.once,
                saved=saved.wider(wider),
                temporary=self.once.temporary.wider(wider),
                laid_out=round(laid_out * wider**2),
            ),
            dataclasses.replace(self.evaluation, temporary=self.evaluation.temporary.wider(wider)),
        )
