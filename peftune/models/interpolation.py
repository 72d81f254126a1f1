"""Interpolate between a model before training and now, and keep what it was before."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from peftune.errors import UsageError
from peftune.fastpath.lora_layers import is_int8, lora_layers, scale_of
from peftune.fastpath.mapped_memory import OwnFiles, release_mapped
from peftune.models.architecture import backbone_of, head_of, trainable_parameters

_SCALED = ("lora_B", "lora_embedding_B")
_LEFT = ("lora_A", "lora_E", "lora_embedding_A")
"""The attributes of a `LoraLayer` that hold its update, a product: to scale it, scale one factor."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How far a model lies on the way from its base to what it was tuned to.

    Args:
        alpha: 0 is the base and 1 the tuned model.
        shallow: strength of the first block, from which it rises linearly to `alpha` at the last;
            embeddings count as the first block, the last layer norm as the last. None: `alpha`
            everywhere.

    Raises:
        UsageError: a strength is not between 0 and 1, or `shallow` is above `alpha`.

    References:
        Wortsman et al. 2021, Robust fine-tuning of zero-shot models, arXiv:2109.01903.
        Wang et al. 2024, LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances
        Model Merging, arXiv:2410.17146 (`shallow`).
    """

    alpha: float
    shallow: float | None = None

    def __post_init__(self) -> None:
        """Refuse what lies outside base and tuned model."""
        if not 0 <= self.alpha <= 1:
            message = (
                f"alpha must be between 0, the base, and 1, the tuned model (got {self.alpha:g})."
            )
            raise UsageError(message)
        if self.shallow is not None and not 0 <= self.shallow <= self.alpha:
            message = f"The first block's strength must be between 0 and alpha, which is {self.alpha:g} (got {self.shallow:g})."
            raise UsageError(message)

    def at(self, depth: float) -> float:
        """Return the strength at a depth, 0 at the first block and 1 at the last."""
        if self.shallow is None:
            return self.alpha
        rise = self.alpha - self.shallow
        # From the nearer end, so that both ends are exact.
        if depth < 0.5:  # noqa: PLR2004 - the middle
            return self.shallow + rise * depth
        return self.alpha - rise * (1 - depth)


def weights_at(
    model: nn.Module,
    before: Mapping[str, torch.Tensor],
    strength: Strength,
    *,
    keep_head: bool = False,
) -> dict[str, torch.Tensor]:
    """Compute the weights that make a model act at a strength.

    A trainable weight of the base is interpolated between before and now. Of a low-rank update one
    factor is scaled, which is the same interpolation of the weight that it adapts. Where the
    strength is 0 or 1 a weight is exactly the one before or now.

    Args:
        model: a prepared model; it is not changed.
        before: the weights before training, from `snapshot`.
        strength: how far from there.
        keep_head: leave the classification head as it is.

    Returns:
        The new value of each weight that differs from what the model holds, by name.
    """
    now = trainable_parameters(model)
    kept = _head_names(model) if keep_head else set()
    depths = _depths(model) if strength.shallow is not None else {}
    scaled, left = set(_factor_names(model, _SCALED)), set(_factor_names(model, _LEFT))
    values = {}
    for name, start in before.items():
        share = strength.at(depths.get(name, 0.0))
        if name in kept or share == 1:
            continue
        if share == 0:
            values[name] = start
        elif name in scaled:
            values[name] = now[name].detach() * share
        elif name not in left:
            values[name] = torch.lerp(start, now[name].detach(), share)
    return values


def _head_names(model: nn.Module) -> set[str]:
    head = {id(weight) for weight in head_of(model).parameters()}
    return {name for name, weight in trainable_parameters(model).items() if id(weight) in head}


def _depths(model: nn.Module) -> dict[str, float]:
    """Say how deep each trainable weight lies: 0 in the first block and before, 1 in the last and after."""
    backbone = backbone_of(model)
    of_weight = {id(weight): 1.0 for weight in head_of(model).parameters()}
    of_weight |= {id(weight): 1.0 for weight in backbone.ln_f.parameters()}
    for index, block in enumerate(backbone.h):
        depth = index / (len(backbone.h) - 1) if len(backbone.h) > 1 else 1.0
        of_weight |= {id(weight): depth for weight in block.parameters()}
    return {
        name: of_weight.get(id(weight), 0.0)
        for name, weight in trainable_parameters(model).items()
    }


def _factor_names(model: nn.Module, attributes: tuple[str, ...]) -> Iterator[str]:
    """Name the trainable factors of low-rank updates.

    Everything else that is trainable is interpolated: the head, DoRA's magnitudes, other adapters.
    """
    for prefix, layer in lora_layers(model):
        for attribute in attributes:
            factors = getattr(layer, attribute, None)
            for name, weight in factors.named_parameters() if factors is not None else ():
                if weight.requires_grad:
                    yield f"{prefix}.{attribute}.{name}"


_READ_AT_ONCE = 64 * 2**20
"""Bytes of a mapped base that are in memory at a time while it is hashed."""


def frozen_sha256(model: nn.Module, before: Mapping[str, torch.Tensor]) -> str:
    """Hash the frozen weights, on which the reference rests.

    Of a mapped base little is in memory at a time.

    Args:
        model: a prepared model.
        before: the trainable weights, from `snapshot`; they are left out.
    """
    digest = hashlib.sha256()
    read: list[torch.Tensor] = []
    for name, weight in model.named_parameters():
        if name not in before:
            values = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(values.numpy().data)
            read.append(weight)
            if sum(one.nbytes for one in read) > _READ_AT_ONCE:
                release_mapped(read)
                read.clear()
    release_mapped(read)
    for name, module in model.named_modules():
        if is_int8(module):
            digest.update(f"{name} scale".encode())
            digest.update(scale_of(module).detach().cpu().numpy().data)
    return digest.hexdigest()


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Keep the trainable weights, as they are now.

    Those that are as their mapped checkpoint has them stay there: on a CPU under Linux, for a base
    that is held as its file stores it. The others are copied.

    Returns:
        Each trainable weight by name, on the weight's device, which `beside` follows to another one.
        It does not change when the model is trained.
    """
    files, found = OwnFiles(), {}
    for name, weight in trainable_parameters(model).items():
        own = files.unchanged(weight.detach())
        found[name] = weight.detach().clone() if own is None else own
        release_mapped([weight, *([] if own is None else [own])])
    return found


def beside(before: Mapping[str, torch.Tensor], model: nn.Module) -> Mapping[str, torch.Tensor]:
    """Return the kept weights where the model's own are now: Trainer moves a model that it gets.

    Args:
        before: from `snapshot`.
        model: the model that it was taken of.

    Returns:
        The same object where none has to be moved.
    """
    now = trainable_parameters(model)
    devices = {
        name: now[name].device if name in now else kept.device for name, kept in before.items()
    }
    if all(kept.device == devices[name] for name, kept in before.items()):
        return before
    return {name: kept.to(devices[name]) for name, kept in before.items()}


@contextlib.contextmanager
def at_strength(
    model: nn.Module,
    before: Mapping[str, torch.Tensor],
    strength: Strength | float,
    *,
    keep_head: bool = False,
) -> Iterator[None]:
    """Let the model act between before (0) and now (1) inside the context.

    At 0 and 1 the model is exactly the one before and the one now. The weights come back on exit.

    Args:
        model: a prepared model.
        before: the weights before training, from `snapshot`.
        strength: how far from there; a number is the same strength everywhere.
        keep_head: leave the classification head as it is.
    """
    chosen = strength if isinstance(strength, Strength) else Strength(strength)
    weights = trainable_parameters(model)
    values = weights_at(model, before, chosen, keep_head=keep_head)
    kept = {name: weights[name].data for name in values}
    try:
        for name, value in values.items():
            weights[name].data = value
        yield
    finally:
        for name, now in kept.items():
            weights[name].data = now


def rescale_model(
    model: nn.Module, before: Mapping[str, torch.Tensor], strength: Strength
) -> None:
    """Make a tuned model act at a strength for good, and leave its head as it was tuned.

    Args:
        model: a prepared model; its trainable weights are changed in place.
        before: the weights before training, from `snapshot`.
        strength: how far from the base.
    """
    weights = trainable_parameters(model)
    with torch.no_grad():
        for name, value in weights_at(model, before, strength, keep_head=True).items():
            weights[name].copy_(value)
