"""Parameter-efficient fine-tuning of GPT-2 for sequence classification, with the forgetting it costs.

Light: importing peftune loads no torch; each name loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from peftune._version import __version__

if TYPE_CHECKING:
    from peftune.adapters import Classifier, load, prepare, save
    from peftune.adapters.classifier_set import ClassifierSet, load_many
    from peftune.adapters.difference import ArtifactDifference, diff
    from peftune.adapters.hub.push import push
    from peftune.adapters.inspection import Contents, inspect
    from peftune.adapters.merged_checkpoint import Merged, merge
    from peftune.adapters.verification import Verification, verify
    from peftune.baselines.few_shot import FewShot, fewshot
    from peftune.errors import PeftuneError
    from peftune.experiments import Run, forget, read_run, run
    from peftune.experiments.evaluate import evaluate
    from peftune.experiments.learning_curve import learning_curve
    from peftune.experiments.learning_curve_results import LearningCurve
    from peftune.experiments.rescale import rescale
    from peftune.experiments.tune import Tuning, tune
    from peftune.findings import CheckReport, check
    from peftune.forgetting.callback import ForgettingCallback
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
    from peftune.reporting.report_writer import report
    from peftune.strategies import Full, HeadOnly, LoRA, LoRA8bit, Strategy
    from peftune.tasks.predictions import Prediction
    from peftune.training.regularization import RegularizedTrainer

_HOMES = {
    "ArtifactDifference": "peftune.adapters.difference",
    "CheckReport": "peftune.findings",
    "Classifier": "peftune.adapters",
    "ClassifierSet": "peftune.adapters.classifier_set",
    "Cloze": "peftune.probes",
    "Contents": "peftune.adapters.inspection",
    "EWC": "peftune.regularizers",
    "FewShot": "peftune.baselines.few_shot",
    "ForgettingCallback": "peftune.forgetting.callback",
    "Full": "peftune.strategies",
    "HeadOnly": "peftune.strategies",
    "KLDivergence": "peftune.probes",
    "KLToBase": "peftune.regularizers",
    "L2SP": "peftune.regularizers",
    "LanguageModelLoss": "peftune.probes",
    "LearningCurve": "peftune.experiments.learning_curve_results",
    "LinearProbe": "peftune.probes",
    "LoRA": "peftune.strategies",
    "LoRA8bit": "peftune.strategies",
    "Merged": "peftune.adapters.merged_checkpoint",
    "MinimalPairs": "peftune.probes",
    "MultipleChoice": "peftune.probes",
    "PeftuneError": "peftune.errors",
    "Plan": "peftune.planning",
    "Prediction": "peftune.tasks.predictions",
    "Probe": "peftune.probes",
    "Recipe": "peftune.recipe",
    "RegularizedTrainer": "peftune.training.regularization",
    "Regularizer": "peftune.regularizers",
    "Replay": "peftune.regularizers",
    "Run": "peftune.experiments",
    "Strategy": "peftune.strategies",
    "Tuning": "peftune.experiments.tune",
    "Verification": "peftune.adapters.verification",
    "check": "peftune.findings",
    "diff": "peftune.adapters.difference",
    "evaluate": "peftune.experiments.evaluate",
    "fewshot": "peftune.baselines.few_shot",
    "forget": "peftune.experiments",
    "inspect": "peftune.adapters.inspection",
    "learning_curve": "peftune.experiments.learning_curve",
    "load": "peftune.adapters",
    "load_many": "peftune.adapters.classifier_set",
    "plan": "peftune.planning",
    "merge": "peftune.adapters.merged_checkpoint",
    "prepare": "peftune.adapters",
    "push": "peftune.adapters.hub.push",
    "read_recipe": "peftune.recipe",
    "read_run": "peftune.experiments",
    "report": "peftune.reporting.report_writer",
    "rescale": "peftune.experiments.rescale",
    "run": "peftune.experiments",
    "save": "peftune.adapters",
    "tune": "peftune.experiments.tune",
    "verify": "peftune.adapters.verification",
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
