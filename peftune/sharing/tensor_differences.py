"""The tensors of two artifacts side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from peftune.sharing.raw import place_of


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """How far the tensors of one group lie apart.

    Args:
        group: such as `LoRA of attn.c_attn`, `head`, or the name of a weight.
        tensors: how many both have, of the same shape.
        changed: how many of them differ in any number.
        largest: largest absolute difference of a number.
        cosine: of all their numbers as one vector, 1 for the same direction; None where one of
            the two is zero.
    """

    group: str
    tensors: int
    changed: int
    largest: float
    cosine: float | None


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How the tensors of two artifacts differ, as they lie in the files.

    Args:
        only_in_a: names of tensors that the second lacks.
        only_in_b: names of tensors that the first lacks.
        other_shape: tensors of both with another shape, by name: the two shapes.
        groups: the others, group by group.
    """

    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    groups: tuple[GroupDifference, ...]


def compare_tensors(
    a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]
) -> TensorDifference:
    """Compare tensors by name; those of another type are compared as numbers.

    Args:
        a: tensors of the first file, by name.
        b: those of the second.
    """
    both = sorted(set(a) & set(b))
    other = {
        name: (tuple(a[name].shape), tuple(b[name].shape))
        for name in both
        if a[name].shape != b[name].shape
    }
    groups: dict[str, list[str]] = {}
    for name in both:
        if name not in other:
            groups.setdefault(place_of(name).group, []).append(name)
    return TensorDifference(
        only_in_a=tuple(sorted(set(a) - set(b))),
        only_in_b=tuple(sorted(set(b) - set(a))),
        other_shape=other,
        groups=tuple(
            _compare(group, [(a[name].double(), b[name].double()) for name in names])
            for group, names in sorted(groups.items())
        ),
    )


def _compare(group: str, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> GroupDifference:
    listed = list(pairs)
    steps = [float((one - other).abs().max()) if one.numel() else 0.0 for one, other in listed]
    product = sum(float((one * other).sum()) for one, other in listed)
    sizes = [sum(float(pair[side].square().sum()) for pair in listed) ** 0.5 for side in (0, 1)]
    # Equal vectors have the cosine 1, whatever rounding makes of it.
    same = max(steps) == 0
    cosine = None if not all(sizes) else 1.0 if same else product / (sizes[0] * sizes[1])
    return GroupDifference(group, len(listed), sum(step > 0 for step in steps), max(steps), cosine)
