"""What goes into a run: its recipe, its rows, its base and its probe texts, each by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peftune.data.documents import documents_sha256, load_documents
from peftune.data.leakage import refuse_overlap
from peftune.data.task import Task, load_task
from peftune.forgetting.measure import ProbeText, read_probe_texts
from peftune.models.fingerprint import base_fingerprint
from peftune.models.prepare import check_length
from peftune.models.source import find_base
from peftune.recipe import Recipe, recipe_sha256
from peftune.recipe.schema import ForgettingSection


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
        LeakageError: a probe's text is read in training too.
    """
    source = find_base(recipe.model.name_or_path, recipe.model.revision)
    check_length(source, recipe.model.max_length)
    task = load_task(recipe.data)
    texts = read_probe_texts(recipe.forgetting.probes)
    _refuse_leaks(recipe.forgetting, task, texts)
    return task, texts, inputs_of(recipe, task, texts, base_fingerprint(source.folder))


def _refuse_leaks(section: ForgettingSection, task: Task, texts: Sequence[ProbeText]) -> None:
    """Let no probe report on a text that training reads or decides by."""
    read: list[tuple[str, Sequence[Any]]] = [("the task's training rows", task.train.texts)]
    for term in section.regularizers:
        read += [
            (f"the text of regularizer '{term.type}'", load_documents(source))
            for source in term.sources().values()
        ]
    if section.during_training is not None:
        probe = section.during_training.probe
        read.append((f"'{probe.label}', measured during training", load_documents(probe)))
    for text in texts:
        for name, documents in read:
            refuse_overlap(
                text.documents, documents, judged_name=f"probe '{text.label}'", read_name=name
            )


def inputs_of(recipe: Recipe, task: Task, texts: Sequence[ProbeText], fingerprint: str) -> Inputs:
    """Hash what was read."""
    return Inputs(
        recipe_sha256=recipe_sha256(recipe),
        data_fingerprint=task.fingerprint(),
        base_fingerprint=fingerprint,
        probe_sha256=tuple(documents_sha256(text.documents) for text in texts),
    )
