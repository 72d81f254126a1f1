"""Parameter-efficient fine-tuning of GPT-2 for sequence classification, with the forgetting it costs.

Light: importing peftune loads no torch; each name loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from peftune._version import __version__

if TYPE_CHECKING:
    from peftune.artifacts import Classifier, Prediction, load, save
    from peftune.errors import PeftuneError
    from peftune.models.prepare import prepare
    from peftune.probes import LanguageModelLoss, Probe
    from peftune.recipe import Recipe, read_recipe
    from peftune.runs import Run, read_run, run
    from peftune.runs.rescale import rescale
    from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy

_HOMES = {
    "Classifier": "peftune.artifacts",
    "Full": "peftune.strategies",
    "HeadOnly": "peftune.strategies",
    "LanguageModelLoss": "peftune.probes",
    "LoRA": "peftune.strategies",
    "LoRA8bit": "peftune.strategies",
    "PeftuneError": "peftune.errors",
    "Prediction": "peftune.artifacts",
    "Probe": "peftune.probes",
    "Recipe": "peftune.recipe",
    "Run": "peftune.runs",
    "Strategy": "peftune.strategies",
    "load": "peftune.artifacts",
    "prepare": "peftune.models.prepare",
    "read_recipe": "peftune.recipe",
    "read_run": "peftune.runs",
    "rescale": "peftune.runs.rescale",
    "run": "peftune.runs",
    "save": "peftune.artifacts",
}

__all__ = [
    "Classifier",
    "Full",
    "HeadOnly",
    "LanguageModelLoss",
    "LoRA",
    "LoRA8bit",
    "PeftuneError",
    "Prediction",
    "Probe",
    "Recipe",
    "Run",
    "Strategy",
    "__version__",
    "load",
    "prepare",
    "read_recipe",
    "read_run",
    "rescale",
    "run",
    "save",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home."""
    if name not in _HOMES:
        message = f"module 'peftune' has no attribute '{name}'"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
