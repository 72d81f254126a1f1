"""A stage: what is learned before the recipe's own task."""

from __future__ import annotations

from pydantic import Field, model_validator

from peftune.recipe.data import DataSection
from peftune.recipe.section import Section
from peftune.recipe.task import TaskName, refuse_task_mismatch
from peftune.recipe.training import TrainingSection


class Stage(Section):
    """One stage: its rows, its task and its training; strategy, base and seed are the recipe's."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the stage in reports."
    )
    task: TaskName = Field("language-modeling", description="What is learned from the rows.")
    data: DataSection = Field(description="The rows, or the raw text.")
    training: TrainingSection = Field(
        default_factory=TrainingSection, description="The training; its seed is the recipe's."
    )

    @model_validator(mode="after")
    def _fits_its_task(self) -> Stage:
        refuse_task_mismatch(self.task, self.data, self.training)
        if self.data.cross_validation is not None:
            message = "'data.cross_validation' is for the recipe's own task, not for a stage"
            raise ValueError(message)
        return self
