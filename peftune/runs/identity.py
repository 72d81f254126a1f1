"""What a run was: its identity, its environment, and the facts that its diagnosis looks at."""

from __future__ import annotations

from collections import Counter

from torch import nn

from peftune.artifacts.rounding import Rounding
from peftune.data.task import Task
from peftune.diagnosis import Facts
from peftune.models.prepare import preparation_of
from peftune.recipe import Recipe
from peftune.runs.environment import RunEnvironment, environment
from peftune.runs.forgetting import CONTROL
from peftune.runs.inputs import Inputs
from peftune.runs.report import Forgetting, Identity, StartedAs
from peftune.seeds import seed_streams
from peftune.tasks.learning import Learning
from peftune.training.train import TrainingResult


def identity_of(
    recipe: Recipe, model: nn.Module, inputs: Inputs, training: TrainingResult
) -> Identity:
    """Say what was run."""
    preparation = preparation_of(model)
    start = preparation.start
    return Identity(
        name=recipe.name,
        strategy=recipe.strategy.name,
        strategy_config=recipe.strategy.fields(),
        seed=recipe.training.seed,
        base_model=(preparation.base if start is None else start.origin).name,
        base_fingerprint=inputs.base_fingerprint,
        recipe_sha256=inputs.recipe_sha256,
        data_fingerprint=inputs.data_fingerprint,
        texts_sha256=inputs.texts_sha256,
        order_sha256=training.order_sha256,
        start_sha256=inputs.start_sha256,
        start=None
        if start is None
        else StartedAs(start.kind, start.sha256, start.task, preparation.base_fingerprint),
    )


def environment_of(task: Task, seed: int, training: TrainingResult) -> RunEnvironment:
    """Say with what a run was done."""
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
) -> Facts:
    """Gather what the diagnosis looks at."""
    counts = Counter(task.train.labels) if task.kind == "single-label" else Counter()
    return Facts(
        recipe=recipe,
        learning=learning,
        probes=forgetting.probes,
        control=forgetting.controls.get(CONTROL),
        training=training,
        train_labels={name: counts[index] for index, name in enumerate(task.labels)},
        validation_rows=len(task.validation),
        rounding=rounding,
    )
