"""The installed strategies, ours and those of other packages alike."""

from __future__ import annotations

from peftune.plugins import PluginGroup
from peftune.strategies.base import Strategy

STRATEGIES: PluginGroup[Strategy] = PluginGroup("peftune.strategies", "strategy", Strategy)  # type: ignore[type-abstract]
