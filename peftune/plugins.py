"""Find plug-ins by entry point: the only road by which a strategy or a probe enters peftune."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from peftune.errors import PluginError, suggestion

PluginClass = TypeVar("PluginClass")


@dataclass(frozen=True, slots=True)
class PluginGroup(Generic[PluginClass]):
    """The plug-ins of one entry-point group.

    Args:
        group: entry-point group, such as `peftune.strategies`.
        kind: what one plug-in is called in messages, such as `strategy`.
        base: class that every plug-in inherits.
        key: key of a recipe under which the name of a plug-in stands.
    """

    group: str
    kind: str
    base: type[PluginClass]
    key: str = "name"

    def names(self) -> list[str]:
        """List the registered names without importing any plug-in."""
        return sorted({point.name for point in self._points()})

    def get(self, name: str) -> type[PluginClass]:
        """Import and return the plug-in registered under a name.

        Raises:
            PluginError: the name is unknown, claimed twice, fails to import, or is not such a plug-in.
        """
        points = [point for point in self._points() if point.name == name]
        if not points:
            message = f"Unknown {self.kind} '{name}'. {suggestion(name, self.names())}"
            raise PluginError(message)
        if len(points) > 1:
            owners = " and ".join(sorted(_package(point) for point in points))
            message = (
                f"The {self.kind} '{name}' is claimed by {owners}. Uninstall all but one of them."
            )
            raise PluginError(message)
        return self._checked(points[0])

    def load_all(self) -> tuple[dict[str, type[PluginClass]], dict[str, PluginError]]:
        """Import every plug-in; a broken one is returned as its error and breaks no other."""
        loaded: dict[str, type[PluginClass]] = {}
        broken: dict[str, PluginError] = {}
        for name in self.names():
            try:
                loaded[name] = self.get(name)
            except PluginError as error:  # noqa: PERF203 - one broken plug-in breaks no other
                broken[name] = error
        return loaded, broken

    def package_of(self, name: str) -> str:
        """Name the installed package that registers a plug-in."""
        return " and ".join(
            sorted(_package(point) for point in self._points() if point.name == name)
        )

    def _points(self) -> list[EntryPoint]:
        """List entry points; a package that the path shows twice counts once."""
        unique = {
            (point.name, point.value, _package(point)): point
            for point in entry_points(group=self.group)
        }
        return list(unique.values())

    def _checked(self, point: EntryPoint) -> type[PluginClass]:
        package = _package(point)
        try:
            plugin = point.load()
        except (Exception, SystemExit) as error:
            message = (
                f"The {self.kind} '{point.name}' of package '{package}' cannot be imported: "
                f"{type(error).__name__}: {error}. Reinstall or remove that package."
            )
            raise PluginError(message) from error
        if not (isinstance(plugin, type) and issubclass(plugin, self.base)):
            message = (
                f"'{point.value}' of package '{package}' is registered as {self.kind} "
                f"'{point.name}' but is not a {self.base.__name__} class."
            )
            raise PluginError(message)
        if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
            message = (
                f"'{point.value}' of package '{package}' is registered as {self.kind} "
                f"'{point.name}' but lacks {', '.join(missing)}."
            )
            raise PluginError(message)
        own_name = getattr(plugin, "name", None)
        if own_name != point.name:
            message = (
                f"'{point.value}' of package '{package}' is registered as {self.kind} "
                f"'{point.name}' but calls itself '{own_name}'. Make the two names equal."
            )
            raise PluginError(message)
        return plugin


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown package"
