"""Prepare a model for a training script of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.artifacts.start import Beginning, begin
from peftune.models.prepare import preparation_of
from peftune.recipe.task import TaskName
from peftune.strategies import Strategy


def prepare(
    name_or_path: str,
    *,
    strategy: Strategy,
    labels: Sequence[str],
    revision: str | None = None,
    init_from: str | Path | None = None,
    base_folder: str | Path | None = None,
    max_length: int = 128,
    seed: int = 0,
    use_cpu: bool = False,
    task: TaskName = "single-label",
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Prepare a model for a training script of one's own; a stock `transformers.Trainer` trains it.

    Args:
        name_or_path: hub id, local folder, or `bundled:tiny-gpt2`.
        strategy: which weights learn, such as `peftune.LoRA(r=8)`.
        labels: label names in the order of their ids.
        revision: commit, tag or branch of a hub id.
        init_from: artifact of another task, on the same base: its trunk is the start.
        base_folder: where that trunk is written as a checkpoint, if the strategy can only be put
            on top of it: where the artifact was made by another strategy, and some weight that it
            changed is frozen in this one. The new artifact then belongs to that checkpoint.
        max_length: longest text in tokens; remembered for `save` and `predict`.
        seed: seed of the new head and of the adapter.
        use_cpu: stay on the CPU even where there is a GPU.
        task: `single-label`, `multi-label` or `regression`.

    Returns:
        The model, in train mode, and its tokenizer, which pads on the right with the end token.

    Raises:
        ArtifactError: the artifact is damaged, or belongs to another base.
        BaseModelError: the base cannot be found or read.
        GuardError: the strategy leaves the model in a wrong state.
        OutputFolderError: `base_folder` holds something else.
        UsageError: `base_folder` is needed and not given.
    """
    model = begin(
        Beginning(
            name_or_path,
            strategy,
            labels,
            task=task,
            revision=revision,
            max_length=max_length,
            seed=seed,
            use_cpu=use_cpu,
            init_from=None if init_from is None else Path(init_from),
            base_folder=None if base_folder is None else Path(base_folder),
        )
    )
    return model, preparation_of(model).tokenizer
