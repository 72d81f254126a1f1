"""Inputs of a run: recipe, rows, base and probe documents, with their hashes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from peftune.adapters.artifact import open_artifact
from peftune.adapters.saving import Rounding
from peftune.data.cleaning import clean_tables
from peftune.data.documents import documents_sha256, load_documents
from peftune.data.similarity import refuse_overlap, refuse_same_splits
from peftune.data.split_tables import read_split_tables
from peftune.data.task_data import Task, load_task, task_of
from peftune.experiments.environment import RunEnvironment, environment
from peftune.experiments.report import CONTROL, Forgetting, Identity, InitialArtifact
from peftune.findings import CheckReport, check_tables, refuse_failed
from peftune.findings.facts import RunFacts
from peftune.findings.texts import release_identifier
from peftune.forgetting.measurement import ProbeText, read_probe_texts
from peftune.models.base_files import BaseSource
from peftune.models.fingerprint import base_fingerprint, find_sound_base
from peftune.models.prepare import preparation_of, refuse_nothing_trainable
from peftune.models.tokenizer import load_tokenizer
from peftune.recipe import Recipe, recipe_sha256
from peftune.recipe.schema import ForgettingSection
from peftune.seeds import seed_streams
from peftune.tasks.scores import Learning
from peftune.training.train import TrainingResult

NamedText = tuple[str, Sequence[Any]]
"""Name of a text in messages, and its documents."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a run reads; two runs with equal `sha256` compute the same.

    Args:
        recipe_sha256: hash of the resolved recipe, without the places of its files.
        data_fingerprint: hash of the rows of every split, in order.
        base_fingerprint: hash of the base's backbone.
        probe_sha256: hash of each probe's documents.
        texts_sha256: hash of the documents that regularizers learn from and that are measured
            during training, in order; of nothing where there are none.
        start_sha256: hash of what the run is initialized from: the artifact of `model.init_from` and the
            rows of the stages; of nothing where that is the base alone.
    """

    recipe_sha256: str
    data_fingerprint: str
    base_fingerprint: str
    probe_sha256: tuple[str, ...]
    texts_sha256: str
    start_sha256: str

    @property
    def sha256(self) -> str:
        """Name all inputs by one hash."""
        parts = (
            self.recipe_sha256,
            self.data_fingerprint,
            self.base_fingerprint,
            *self.probe_sha256,
            self.texts_sha256,
            self.start_sha256,
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_inputs(recipe: Recipe) -> tuple[Task, list[ProbeText], Inputs, CheckReport]:
    """Read and check the rows, the texts and the base of a resolved recipe.

    Returns:
        The rows, the probes with their documents, the hashes of all, and what the checks say.

    Raises:
        DataError: rows or texts cannot be used.
        BaseModelError: the base cannot be found.
        UsageError: the base has fewer positions than the recipe asks for, or nothing would learn.
        LeakageError: a probe's text is read in training too, rows of one split are in another, or
            two splits are the same rows.
    """
    for name in (recipe.task, *(stage.task for stage in recipe.stages)):
        refuse_nothing_trainable(recipe.strategy, name)
    model = recipe.model
    source = find_sound_base(model.name_or_path, model.revision, max_length=model.max_length)
    texts = read_probe_texts(recipe.forgetting.probes)
    stages = {stage.name: load_task(stage.data, stage.task) for stage in recipe.stages}
    task, checks = _checked_task(recipe, texts, stages, source)
    learned, watched = _read_in_training(recipe.forgetting)
    earlier: list[NamedText] = [
        (f"the training rows of stage '{name}'", stage.train.texts)
        for name, stage in stages.items()
    ]
    _refuse_leaks(task, texts, [*learned, *earlier], watched)
    refuse_failed(checks)
    hashes = [documents_sha256(text) for _, text in (*learned, *watched)]
    begun = [_artifact_digest(recipe), *(stage.fingerprint() for stage in stages.values())]
    inputs = inputs_of(
        recipe,
        task,
        texts,
        base_fingerprint=base_fingerprint(source.folder),
        texts_sha256=hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        start_sha256=hashlib.sha256("\n".join(filter(None, begun)).encode()).hexdigest(),
    )
    return task, texts, inputs, checks


def _checked_task(
    recipe: Recipe, texts: Sequence[ProbeText], stages: Mapping[str, Task], source: BaseSource
) -> tuple[Task, CheckReport]:
    """Read the tables once, for the rows and for the data checks."""
    tables = read_split_tables(recipe.data)
    refuse_same_splits(tables, recipe.data)
    documents = [document for text in texts for document in text.documents]
    cleaning = clean_tables(tables, recipe.data, recipe.task_type, general=documents)
    task = task_of(tables, recipe.data, recipe.task, cleaning=cleaning)
    recipe.task_type.refuse_label_mismatch(task.labels, recipe.training)
    checks = check_tables(
        recipe,
        tables,
        cleaning,
        general={text.label: text.documents for text in texts},
        stages={name: stage.train.texts for name, stage in stages.items()},
        tokenizer=load_tokenizer(source.folder),
    )
    release_identifier()
    return task, checks


def inputs_of(
    recipe: Recipe,
    task: Task,
    texts: Sequence[ProbeText],
    *,
    base_fingerprint: str,
    texts_sha256: str,
    start_sha256: str,
) -> Inputs:
    """Hash the inputs."""
    return Inputs(
        recipe_sha256=recipe_sha256(recipe),
        data_fingerprint=task.fingerprint(),
        base_fingerprint=base_fingerprint,
        probe_sha256=tuple(documents_sha256(text.documents) for text in texts),
        texts_sha256=texts_sha256,
        start_sha256=start_sha256,
    )


def _artifact_digest(recipe: Recipe) -> str | None:
    """Return the digest of the artifact that a run is initialized from."""
    init = recipe.model.init_from
    return None if init is None else open_artifact(init).digest


def _read_in_training(section: ForgettingSection) -> tuple[list[NamedText], list[NamedText]]:
    """Read the documents of regularizers, and those of the probe during training."""
    learned: list[NamedText] = [
        (f"the text of regularizer '{term.name}'", load_documents(source))
        for term in section.regularizers
        for source in term.sources().values()
    ]
    if section.during_training is None:
        return learned, []
    probe = section.during_training.probe
    return learned, [(f"'{probe.label}', measured during training,", load_documents(probe))]


def _refuse_leaks(
    task: Task,
    texts: Sequence[ProbeText],
    learned: Sequence[NamedText],
    watched: Sequence[NamedText],
) -> None:
    """Report on no text that training reads or decides by, and decide by none that it reads."""
    learned = [("the task's training rows", task.train.texts), *learned]
    for text in texts:
        _refuse_shared(f"probe '{text.label}'", text.documents, [*learned, *watched])
    for name, documents in watched:
        _refuse_shared(name, documents, learned)


def _refuse_shared(name: str, evaluation_rows: Sequence[Any], read: Sequence[NamedText]) -> None:
    for read_name, documents in read:
        refuse_overlap(evaluation_rows, documents, name=name, read_name=read_name)


def identity_of(
    recipe: Recipe, model: nn.Module, inputs: Inputs, training: TrainingResult
) -> Identity:
    """Return the identity of a run."""
    preparation = preparation_of(model)
    start = preparation.initialized_from
    return Identity(
        name=recipe.name,
        strategy=recipe.strategy.name,
        strategy_config=recipe.strategy.fields(),
        seed=recipe.training.seed,
        base_model=preparation.origin.name,
        base_fingerprint=inputs.base_fingerprint,
        recipe_sha256=inputs.recipe_sha256,
        data_fingerprint=inputs.data_fingerprint,
        texts_sha256=inputs.texts_sha256,
        order_sha256=training.order_sha256,
        start_sha256=inputs.start_sha256,
        start=None
        if start is None
        else InitialArtifact(
            start.kind, start.sha256, start.task_name, preparation.base_fingerprint
        ),
    )


def environment_of(task: Task, seed: int, training: TrainingResult) -> RunEnvironment:
    """Return the environment of a run."""
    return {
        **environment(),
        "seed_streams": seed_streams(seed),
        "dropped_rows": dict(task.dropped),
        "dropped_tokens": training.dropped_tokens,
    }


def facts_of(
    recipe: Recipe,
    task: Task,
    learning: Learning,
    forgetting: Forgetting,
    training: TrainingResult,
    *,
    rounding: Rounding | None = None,
) -> RunFacts:
    """Gather the facts that findings are made from."""
    counts = Counter(task.train.labels) if task.task_type.one_label else Counter()
    return RunFacts(
        recipe=recipe,
        learning=learning,
        probes=forgetting.probes,
        control=forgetting.controls.get(CONTROL),
        training=training,
        train_labels={name: counts[index] for index, name in enumerate(task.labels)},
        validation_rows=len(task.validation),
        rounding=rounding,
    )
