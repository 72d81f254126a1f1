"""The base that forgetting is measured against, where a strategy was put on another start."""

from __future__ import annotations

from torch import nn

from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.source import BaseSource


def stands_on_its_start(model: nn.Module) -> bool:
    """Say whether a prepared model with its adapter off is its start, and not the user's base."""
    start = preparation_of(model).start
    return start is not None and start.kind == "base"


def compared_with(model: nn.Module) -> nn.Module:
    """Return a model whose untouched base is the one that forgetting is measured against.

    Returns:
        The model itself; or, where it stands on its start, the user's base, loaded by itself and
        prepared in the same precision.
    """
    start = preparation_of(model).start
    if start is None or start.kind != "base":
        return model
    return prepared_again(model, start.origin)


def prepared_again(model: nn.Module, source: BaseSource | None = None) -> nn.Module:
    """Prepare the base of a model again from its files, or another one in its place."""
    preparation = preparation_of(model)
    return prepare_model(
        str((source or preparation.base).folder),
        preparation.strategy,
        labels=preparation.labels,
        task=preparation.task,
        max_length=preparation.max_length,
        use_cpu=next(model.parameters()).device.type == "cpu",
    )
