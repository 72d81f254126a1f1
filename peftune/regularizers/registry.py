"""The installed regularisers, ours and those of other packages alike."""

from __future__ import annotations

from peftune.plugins import PluginGroup
from peftune.regularizers.base import Regularizer

REGULARIZERS: PluginGroup[Regularizer] = PluginGroup(
    "peftune.regularizers",
    "regularizer",
    Regularizer,  # type: ignore[type-abstract]
    name_field="type",
)
