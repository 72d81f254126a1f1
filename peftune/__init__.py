"""Parameter-efficient fine-tuning of GPT-2 for sequence classification, with the forgetting it costs.

Light: importing peftune loads no torch; each name loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from peftune._version import __version__

if TYPE_CHECKING:
    from peftune.artifacts import Classifier, load, prepare, save
    from peftune.baselines.prompted import FewShot, fewshot
    from peftune.checks import CheckReport, check
    from peftune.errors import PeftuneError
    from peftune.planning import Plan, plan
    from peftune.probes import (
        Cloze,
        KLDivergence,
        LanguageModelLoss,
        LinearProbe,
        MinimalPairs,
        MultipleChoice,
        Probe,
    )
    from peftune.recipe import Recipe, read_recipe
    from peftune.regularizers import EWC, L2SP, KLToBase, Regularizer, Replay
    from peftune.reporting.rebuild import report
    from peftune.runs import Run, forget, read_run, run
    from peftune.runs.evaluate import evaluate
    from peftune.runs.rescale import rescale
    from peftune.scaling import LearningCurve, learning_curve
    from peftune.serving import ClassifierSet, load_many
    from peftune.sharing.contents import Contents, inspect
    from peftune.sharing.difference import ArtifactDifference, diff
    from peftune.sharing.merge import merge
    from peftune.sharing.merged import Merged
    from peftune.sharing.push import push
    from peftune.sharing.verification import Verification
    from peftune.sharing.verify import verify
    from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy
    from peftune.tasks.predictions import Prediction
    from peftune.training.forgetting_callback import ForgettingCallback
    from peftune.training.regularized import RegularizedTrainer
    from peftune.tuning import Tuning, tune

_HOMES = {
    "ArtifactDifference": "peftune.sharing.difference",
    "CheckReport": "peftune.checks",
    "Classifier": "peftune.artifacts",
    "ClassifierSet": "peftune.serving",
    "Cloze": "peftune.probes",
    "Contents": "peftune.sharing.contents",
    "EWC": "peftune.regularizers",
    "FewShot": "peftune.baselines.prompted",
    "ForgettingCallback": "peftune.training.forgetting_callback",
    "Full": "peftune.strategies",
    "HeadOnly": "peftune.strategies",
    "KLDivergence": "peftune.probes",
    "KLToBase": "peftune.regularizers",
    "L2SP": "peftune.regularizers",
    "LanguageModelLoss": "peftune.probes",
    "LearningCurve": "peftune.scaling",
    "LinearProbe": "peftune.probes",
    "LoRA": "peftune.strategies",
    "LoRA8bit": "peftune.strategies",
    "Merged": "peftune.sharing.merged",
    "MinimalPairs": "peftune.probes",
    "MultipleChoice": "peftune.probes",
    "PeftuneError": "peftune.errors",
    "Plan": "peftune.planning",
    "Prediction": "peftune.tasks.predictions",
    "Probe": "peftune.probes",
    "Recipe": "peftune.recipe",
    "RegularizedTrainer": "peftune.training.regularized",
    "Regularizer": "peftune.regularizers",
    "Replay": "peftune.regularizers",
    "Run": "peftune.runs",
    "Strategy": "peftune.strategies",
    "Tuning": "peftune.tuning",
    "Verification": "peftune.sharing.verification",
    "check": "peftune.checks",
    "diff": "peftune.sharing.difference",
    "evaluate": "peftune.runs.evaluate",
    "fewshot": "peftune.baselines.prompted",
    "forget": "peftune.runs",
    "inspect": "peftune.sharing.contents",
    "learning_curve": "peftune.scaling",
    "load": "peftune.artifacts",
    "load_many": "peftune.serving",
    "plan": "peftune.planning",
    "merge": "peftune.sharing.merge",
    "prepare": "peftune.artifacts",
    "push": "peftune.sharing.push",
    "read_recipe": "peftune.recipe",
    "read_run": "peftune.runs",
    "report": "peftune.reporting.rebuild",
    "rescale": "peftune.runs.rescale",
    "run": "peftune.runs",
    "save": "peftune.artifacts",
    "tune": "peftune.tuning",
    "verify": "peftune.sharing.verify",
}

__all__ = [
    "EWC",
    "L2SP",
    "ArtifactDifference",
    "CheckReport",
    "Classifier",
    "ClassifierSet",
    "Cloze",
    "Contents",
    "FewShot",
    "ForgettingCallback",
    "Full",
    "HeadOnly",
    "KLDivergence",
    "KLToBase",
    "LanguageModelLoss",
    "LearningCurve",
    "LinearProbe",
    "LoRA",
    "LoRA8bit",
    "Merged",
    "MinimalPairs",
    "MultipleChoice",
    "PeftuneError",
    "Plan",
    "Prediction",
    "Probe",
    "Recipe",
    "RegularizedTrainer",
    "Regularizer",
    "Replay",
    "Run",
    "Strategy",
    "Tuning",
    "Verification",
    "__version__",
    "check",
    "diff",
    "evaluate",
    "fewshot",
    "forget",
    "inspect",
    "learning_curve",
    "load",
    "load_many",
    "merge",
    "plan",
    "prepare",
    "push",
    "read_recipe",
    "read_run",
    "report",
    "rescale",
    "run",
    "save",
    "tune",
    "verify",
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
