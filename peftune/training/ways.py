"""How each kind of task is read and trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peftune.data.packing import pack_rows
from peftune.data.tokens import Tokens, tokenize_rows
from peftune.recipe.task import TaskName
from peftune.training.language import LanguageTrainer
from peftune.training.trainer import ClassifierTrainer


@dataclass(frozen=True, slots=True)
class Way:
    """How a kind of task is trained.

    Args:
        tokens: turns rows into what the model reads.
        trainer: gives the loss.
    """

    tokens: Callable[..., Tokens]
    trainer: type[ClassifierTrainer]


_CLASSIFYING = Way(tokenize_rows, ClassifierTrainer)
_WAYS: dict[TaskName, Way] = {"language-modeling": Way(pack_rows, LanguageTrainer)}


def way_of(task: TaskName) -> Way:
    """Return how a kind of task is trained."""
    return _WAYS.get(task, _CLASSIFYING)
