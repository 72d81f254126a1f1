"""Some blocks of a model that stand for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from peftune.models.parts import trunk_of


@dataclass(frozen=True, slots=True)
class Sample:
    """Blocks that stand for all: the first, the last, and one of each kind between, in their order.

    Args:
        blocks: those.
        pairs: for each kind that there are more of: the blocks with a second one of it.
        more: for each of these kinds, how many more than one there are.
        pattern: the same of models that differ only in width and in `more`.
    """

    blocks: Sequence[nn.Module]
    pairs: Sequence[Sequence[nn.Module]]
    more: Sequence[int]
    pattern: Hashable


def sample_of(model: nn.Module) -> Sample:
    """Choose blocks by what learns in them, and by whether a gradient goes on below them."""
    trunk: Any = trunk_of(model)
    blocks: list[nn.Module] = list(trunk.h)
    embeddings = (*trunk.wte.parameters(), *trunk.wpe.parameters())
    below = any(weight.requires_grad for weight in embeddings)
    kinds: list[Hashable] = []
    places: dict[Hashable, list[int]] = {}
    for place, block in enumerate(blocks):
        learns = tuple((name, weight.requires_grad) for name, weight in block.named_parameters())
        kinds.append((learns, below))
        if 0 < place < len(blocks) - 1:
            places.setdefault(kinds[-1], []).append(place)
        below = below or any(of_weight for _, of_weight in learns)
    once = sorted({0, len(blocks) - 1} | {of_kind[0] for of_kind in places.values()})
    several = [of_kind for of_kind in places.values() if len(of_kind) > 1]
    return Sample(
        blocks=[blocks[place] for place in once],
        pairs=[[blocks[place] for place in sorted([*once, of_kind[1]])] for of_kind in several],
        more=[len(of_kind) - 1 for of_kind in several],
        pattern=(*(kinds[place] for place in once), *(kinds[of_kind[0]] for of_kind in several)),
    )


@contextlib.contextmanager
def only_blocks(model: nn.Module, blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Let a trunk consist of some blocks inside."""
    trunk: Any = trunk_of(model)
    own = trunk.h
    trunk.h = nn.ModuleList(blocks)
    try:
        yield
    finally:
        trunk.h = own
