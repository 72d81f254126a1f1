"""How the artifact of a run is stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peftune.recipe.section import Section
from peftune.recipe.task import CLASSIFICATION, TaskName

StoredType = Literal["float32", "bfloat16"]
"""What a file holds the learned weights as; in memory they are float32."""


class SaveSection(Section):
    """What is written at the end of a run."""

    dtype: StoredType = Field(
        "float32",
        description="Type of the stored weights. bfloat16 halves the file; it is kept only if no predicted label of the validation rows changes.",
    )


def refuse_unlabelled(dtype: StoredType, task: TaskName) -> None:
    """Refuse to round where no label could show that it does no harm.

    Raises:
        ValueError: with what the task has to be.
    """
    if dtype != "float32" and task not in CLASSIFICATION:
        message = f"'save.dtype: {dtype}' is kept only where no predicted label changes, and a task of the kind {task} has none; it belongs to {' and '.join(CLASSIFICATION)}"
        raise ValueError(message)
