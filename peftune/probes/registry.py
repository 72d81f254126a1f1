"""The installed probes, ours and those of other packages alike."""

from __future__ import annotations

from peftune.plugins import PluginGroup
from peftune.probes.base import Probe

PROBES: PluginGroup[Probe] = PluginGroup("peftune.probes", "probe", Probe, name_field="type")  # type: ignore[type-abstract]
