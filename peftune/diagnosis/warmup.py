"""A warm-up that never ends, or that never begins."""

from __future__ import annotations

import math

from peftune.diagnosis.finding import Facts, Finding, Pitfall
from peftune.recipe.training import TrainingSection

TOO_LONG = Pitfall(
    code="warmup-longer-than-training",
    scope="run",
    looks_for="The learning rate was still rising when training ended, so it never was what the recipe asks for.",
    threshold="`training.warmup_steps` is at least the number of optimizer steps that were taken. A share (below 1) cannot be. Said before the training where its length is known by then.",
)

IGNORED = Pitfall(
    code="warmup-ignored",
    scope="run",
    looks_for="A warm-up is asked for, and the schedule has none.",
    threshold="`training.warmup_steps` is above 0 with `training.lr_scheduler_type: constant`, which takes no notice of it. Said before the training.",
)


def find_long_warmup(facts: Facts) -> Finding | None:
    """Look whether training ended within its warm-up."""
    return long_warmup(facts.recipe.training, facts.training.steps)


def find_ignored_warmup(facts: Facts) -> Finding | None:
    """Look whether the schedule takes no notice of the warm-up."""
    return ignored_warmup(facts.recipe.training)


def warmup_ahead(section: TrainingSection, rows: int | None) -> list[Finding]:
    """Look before a training whether its warm-up will be what was asked for.

    Args:
        section: resolved `training` section.
        rows: training rows; None where they are packed, so that the steps are not known.
    """
    steps = None if rows is None and section.max_steps < 0 else planned_steps(section, rows or 0)
    found = [ignored_warmup(section), None if steps is None else long_warmup(section, steps)]
    return [finding for finding in found if finding is not None]


def planned_steps(section: TrainingSection, rows: int) -> int:
    """Count the optimizer steps of a training that does not stop early, as Trainer does."""
    if section.max_steps > 0:
        return section.max_steps
    passes = math.ceil(rows / section.per_device_train_batch_size)
    return math.ceil(
        section.num_train_epochs * math.ceil(passes / section.gradient_accumulation_steps)
    )


def long_warmup(section: TrainingSection, steps: int) -> Finding | None:
    """Look whether so many steps end within the warm-up."""
    warmup, rate = int(section.warmup_steps), section.learning_rate
    if section.lr_scheduler_type == "constant" or not 1 <= steps <= warmup or rate is None:
        return None
    # The first step has a rate of zero, and the peak comes in the step after the warm-up.
    highest = rate * (steps - 1) / warmup
    return TOO_LONG.found(
        "warning",
        f"The warm-up of {warmup} steps does not end within the training of {steps}, so the learning rate rises to {highest:.2g} and never reaches {rate:g}.",
        "Lower training.warmup_steps (a number below 1 is a share of all steps, such as 0.1), or train for longer.",
    )


def ignored_warmup(section: TrainingSection) -> Finding | None:
    """Look whether the schedule takes no notice of the warm-up."""
    if section.lr_scheduler_type != "constant" or section.warmup_steps == 0:
        return None
    return IGNORED.found(
        "warning",
        f"training.warmup_steps is {section.warmup_steps:g}, but lr_scheduler_type: constant has no warm-up: the learning rate is {section.learning_rate:g} from the first step on.",
        "Set training.lr_scheduler_type: constant_with_warmup, or leave training.warmup_steps out.",
    )
