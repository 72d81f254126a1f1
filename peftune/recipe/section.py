"""What every part of a recipe has in common."""

from __future__ import annotations

from peftune.configuration import Configuration


class Section(Configuration):
    """A part of a recipe: frozen, strict, no unknown keys."""
