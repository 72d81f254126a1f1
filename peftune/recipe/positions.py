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
class Fault:
    """One thing that is wrong with a recipe.

    Args:
        place: where it stands, such as `recipe.yaml:12:3`.
        path: which key it concerns; empty for the whole file.
        message: what is wrong, what is allowed, and what to do.
    """

    place: str
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
        known: place for each path, such as `12:3`; or a full place for a command-line override.
    """

    source: str
    known: dict[KeyPath, str] = field(default_factory=dict)

    def record(self, path: KeyPath, line: int, column: int) -> None:
        """Remember the place of a key; lines and columns count from 1."""
        self.known[path] = f"{self.source}:{line}:{column}"

    def record_override(self, path: KeyPath, assignment: str) -> None:
        """Remember that a key was set on the command line."""
        self.known[path] = f"command line '{assignment}'"

    def of(self, path: KeyPath) -> str:
        """Return the place of a path, or of the nearest key above it."""
        while path and path not in self.known:
            path = path[:-1]
        return self.known.get(path, self.source)


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise all faults as one `RecipeError`, one line each; the first of each key is told."""
    told: dict[tuple[str, KeyPath], Fault] = {}
    for fault in faults:
        told.setdefault((fault.place, fault.path), fault)
    if told:
        raise RecipeError("\n".join(str(fault) for fault in told.values()))
