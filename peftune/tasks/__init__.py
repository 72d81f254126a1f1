"""The task types: how each is trained, scored and predicted."""

from __future__ import annotations

from collections.abc import Mapping

from peftune.recipe.task_type import TaskName
from peftune.tasks.base import TaskMethods
from peftune.tasks.language_modeling import LanguageModeling
from peftune.tasks.multi_label import MultiLabel
from peftune.tasks.regression import Regression
from peftune.tasks.single_label import SingleLabel

_METHODS: Mapping[TaskName, TaskMethods] = {
    methods.task.name: methods
    for methods in (SingleLabel(), MultiLabel(), Regression(), LanguageModeling())
}


def methods_of(task: TaskName) -> TaskMethods:
    """Return how a task type is trained, scored and predicted."""
    return _METHODS[task]
