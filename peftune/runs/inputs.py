"""What goes into a run: its recipe, its rows, its base and its probe texts, each by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from peftune.data.documents import documents_sha256
from peftune.data.task import Task, load_task
from peftune.forgetting.measure import ProbeText, read_probe_texts
from peftune.models.fingerprint import base_fingerprint
from peftune.models.prepare import check_length
from peftune.models.source import find_base
from peftune.recipe import Recipe, recipe_sha256


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a run reads; two runs with equal `sha256` compute the same.

    Args:
        recipe_sha256: hash of the resolved recipe, without the places of its files.
        data_fingerprint: hash of the rows of every split, in order.
        base_fingerprint: hash of the base's trunk.
        probe_sha256: hash of each probe's documents.
    """

    recipe_sha256: str
    data_fingerprint: str
    base_fingerprint: str
    probe_sha256: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Name all inputs by one hash."""
        parts = (
            self.recipe_sha256,
            self.data_fingerprint,
            self.base_fingerprint,
            *self.probe_sha256,
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_inputs(recipe: Recipe) -> tuple[Task, list[ProbeText], Inputs]:
    """Read and check the rows, the probe texts and the base of a resolved recipe.

    Raises:
        DataError: rows or texts cannot be used.
        BaseModelError: the base cannot be found.
        UsageError: the base has fewer positions than the recipe asks for.
    """
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    check_length(source, recipe.model.max_length)
    task = load_task(recipe.data)
    texts = read_probe_texts(recipe.forgetting.probes)
    return task, texts, inputs_of(recipe, task, texts, base_fingerprint(source.folder))


def inputs_of(recipe: Recipe, task: Task, texts: Sequence[ProbeText], fingerprint: str) -> Inputs:
    """Hash what was read."""
    return Inputs(
        recipe_sha256=recipe_sha256(recipe),
        data_fingerprint=task.fingerprint(),
        base_fingerprint=fingerprint,
        probe_sha256=tuple(documents_sha256(text.documents) for text in texts),
    )
