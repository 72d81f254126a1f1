"""Where in a recipe a fault lies, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from peftune.errors import RecipeError

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """Write a path the way users do: `forgetting.probes[0].file`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written.

    Args:
        source: name of the file, as the user gave it, or an override.
        line: line from 1; None for the whole source.
        column: column from 1; None for the whole source.
    """

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Write the place the way compilers do: `recipe.yaml:12:3`."""
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"

    @property
    def order(self) -> tuple[bool, int, int]:
        """Key that sorts places from top to bottom, and those of no line after them."""
        return (self.line is None, self.line or 0, self.column or 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a recipe.

    Args:
        place: where it stands.
        path: which key it concerns; empty for the whole file.
        message: what is wrong, what is allowed, and what to do.
    """

    place: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        """Tell place first, then key, then message."""
        key = f"{dotted(self.path)}: " if self.path else ""
        return f"{self.place}: {key}{self.message}"


@dataclass(slots=True)
class Positions:
    """Where each key of a document was written.

    Args:
        source: name of the file, as the user gave it.
        known: place of each path.
    """

    source: str
    known: dict[KeyPath, Place] = field(default_factory=dict)

    def record(self, path: KeyPath, line: int, column: int) -> None:
        """Remember the place of a key; lines and columns count from 1."""
        self.known[path] = Place(self.source, line, column)

    def record_override(self, path: KeyPath, place: Place) -> None:
        """Remember that a key was set by an override, with new keys above it and all below."""
        for known in [known for known in self.known if known[: len(path)] == path]:
            del self.known[known]
        for length in range(1, len(path)):
            self.known.setdefault(path[:length], place)
        self.known[path] = place

    def of(self, path: KeyPath) -> Place:
        """Return the place of a path, or of the nearest key above it."""
        while path and path not in self.known:
            path = path[:-1]
        return self.known.get(path, Place(self.source))


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise all faults as one `RecipeError`, one line each, in the order of the file."""
    ordered = sorted(faults, key=lambda fault: fault.place.order)
    if ordered:
        raise RecipeError(*map(str, ordered))
