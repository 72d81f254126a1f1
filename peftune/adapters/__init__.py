"""Adapters and checkpoints on disk: small, readable without peftune, and bound to their base.

Each name of `__init__.pyi` loads what it needs when it is first used. `rescale` measures what it
saves, so it lies with the experiments, on a higher floor: nothing here imports it before a user
asks for it by name.
"""

from __future__ import annotations

from importlib import import_module

import lazy_loader

_load_name, _names, _ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name == "rescale":
        return import_module("peftune.experiments.rescale").rescale
    return _load_name(name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*_names(), "rescale"])
