"""Initialize a model from its base, or from another artifact: its backbone is taken, the head is new."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from peftune.adapters.artifact import Opened, folder_beside, open_artifact
from peftune.adapters.loading import load_prepared
from peftune.adapters.reference_logits import check_reference_logits
from peftune.adapters.saving import keep_plain
from peftune.adapters.tensors import backbone_tensors, insert_backbone
from peftune.errors import ArtifactError, OutputFolderError, UsageError
from peftune.files.publishing import published
from peftune.models.base_files import BaseSource, find_base
from peftune.models.fingerprint import BaseIdentity, base_fingerprint
from peftune.models.merging import (
    backbone_states,
    copied_into,
    effective_backbone,
    holds_backbone,
    same_states,
    write_backbone,
)
from peftune.models.prepare import (
    InitializedAs,
    InitializedFrom,
    note_initialization,
    preparation_of,
    prepare_model,
)
from peftune.recipe import Recipe
from peftune.recipe.task_type import TaskName
from peftune.strategies import Strategy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Initialization:
    """What to prepare, and what to initialize it from.

    Args:
        name_or_path: hub id, local folder, or `bundled:tiny-gpt2`.
        strategy: which weights are trainable.
        labels: label names in the order of their ids; none for language modeling.
        task: the task type.
        revision: commit, tag or branch of a hub id.
        max_length: longest text in tokens.
        seed: seed of the new head and of the adapter.
        use_cpu: stay on the CPU even where there is a GPU.
        init_from: the artifact that it is initialized from; None for the base.
        base_folder: where the artifact's backbone is written as a plain checkpoint, if the strategy
            can only be put on top of it; None refuses that.
    """

    name_or_path: str
    strategy: Strategy
    labels: Sequence[str]
    task: TaskName = "single-label"
    revision: str | None = None
    max_length: int = 128
    seed: int = 0
    use_cpu: bool = False
    init_from: Path | None = None
    base_folder: Path | None = None

    @classmethod
    def of(cls, recipe: Recipe, labels: Sequence[str], *, base_folder: Path) -> Initialization:
        """Read from a recipe what its own task is initialized from."""
        model = recipe.model
        return cls(
            name_or_path=model.name_or_path,
            strategy=recipe.strategy,
            labels=labels,
            task=recipe.task,
            revision=model.revision,
            max_length=model.max_length,
            seed=recipe.training.seed,
            use_cpu=recipe.training.use_cpu,
            init_from=None if model.init_from is None else Path(model.init_from),
            base_folder=base_folder,
        )

    def prepared(self, name_or_path: str | None = None, *, in_float32: bool = False) -> nn.Module:
        """Prepare the base, or another one in its place."""
        return prepare_model(
            name_or_path or self.name_or_path,
            self.strategy,
            labels=self.labels,
            task=self.task,
            revision=self.revision if name_or_path is None else None,
            max_length=self.max_length,
            seed=self.seed,
            use_cpu=self.use_cpu,
            in_float32=in_float32,
        )


def initialize(initialization: Initialization) -> nn.Module:
    """Prepare a model that is initialized from its base, or from an artifact of another task.

    The artifact is taken over in the first of three ways that fits. The artifact's own strategy
    with fields that mean the same: its tensors are copied in and trained further. A strategy in
    which every weight that the artifact changed is trainable: the weights are copied. Any other: the artifact's backbone is written as a plain checkpoint, which is then the base that the
    strategy is put on. In the first two the reference stays the untouched base.

    Raises:
        ArtifactError: the artifact is damaged, or belongs to another base.
        BaseModelError: the base cannot be found or read.
        GuardError: the strategy leaves the model in a wrong state.
        OutputFolderError: the folder for a checkpoint holds something else.
        UsageError: a checkpoint must be written, and there is no folder for it.
    """
    if initialization.init_from is None:
        return initialization.prepared()
    folder = initialization.init_from
    origin = find_base(initialization.name_or_path, initialization.revision)
    opened = open_artifact(folder)
    manifest = opened.manifest
    _refuse_other_base(opened, origin, initialization.name_or_path)
    # Held in float32 even where it was trained on 8 bits: what it learned is added exactly.
    base = None if folder_beside(opened) else str(origin.folder)
    init = load_prepared(opened, base=base, use_cpu=True, in_float32=True)
    check_reference_logits(
        init,
        preparation_of(init).tokenizer,
        manifest.reference_logits,
        max_length=manifest.max_length,
        source=str(folder),
        task=manifest.task_name,
    )
    model = initialization.prepared()
    kind: InitializedAs = "adapter"
    if not _trains_on(model, init, initialization):
        weights = effective_backbone(init)
        kind = "weights" if copied_into(model, weights) else "base"
        if kind == "base":
            del model  # two of them need not fit on a device
            model = _on_top_of(init, weights, initialization)
    initialized_from = InitializedFrom(
        kind=kind,
        sha256=opened.digest,
        task_name=manifest.task_name,
        origin=BaseIdentity.of(origin, base_fingerprint(origin.folder)),
    )
    note_initialization(model, initialized_from, origin=origin)
    logger.info(
        "initialized from the %s artifact '%s': %s", manifest.task_name, folder.name, _HOW[kind]
    )
    return model.train()


_HOW: Mapping[InitializedAs, str] = {
    "adapter": "its weights are trained further",
    "weights": "its backbone is copied into the trainable weights",
    "base": "its backbone is written to base/ as the checkpoint that the strategy is put on, and the new artifact belongs to that",
}


def _refuse_other_base(opened: Opened, origin: BaseSource, name: str) -> None:
    """Refuse an artifact that was not made, at first, from the base that the user names."""
    manifest = opened.manifest
    earlier = manifest.initialized_from
    made_from = earlier.origin if earlier and folder_beside(opened) else manifest.base
    fingerprint = base_fingerprint(origin.folder)
    if fingerprint != made_from.fingerprint:
        message = (
            f"'{opened.name}' was made from the base '{made_from.name}' with fingerprint {made_from.fingerprint[:12]}…, "
            f"but '{name}' has {fingerprint[:12]}…. Start from an artifact of the same base, or name its base as the model."
        )
        raise ArtifactError(message)


def _trains_on(model: nn.Module, init: nn.Module, initialization: Initialization) -> bool:
    """Copy an artifact's own tensors into a model that makes the same of them, if it does.

    An artifact whose backbone is its base's own has none, and any strategy makes the same of that.
    """
    tensors = {name: weight.detach() for name, weight in backbone_tensors(init).items()}
    bases = [preparation_of(one).base_fingerprint for one in (model, init)]
    same_base = bases[0] == bases[1]
    if same_base and not tensors:
        logger.warning(
            "the backbone of '%s' is its base's own: the model is initialized from the base",
            initialization.init_from,
        )
        return True
    if not (same_base and _means_the_same(init, tensors, initialization)):
        return False
    insert_backbone(model, tensors, source=str(initialization.init_from))
    return True


def _means_the_same(
    init: nn.Module, tensors: Mapping[str, torch.Tensor], initialization: Initialization
) -> bool:
    """Say whether this strategy makes of the artifact's tensors what the artifact's own does."""
    preparation = preparation_of(init)
    if preparation.strategy == initialization.strategy:
        return True
    if type(preparation.strategy) is not type(initialization.strategy):
        return False
    twin = prepare_model(
        preparation.base,
        initialization.strategy,
        labels=initialization.labels,
        task=initialization.task,
        max_length=initialization.max_length,
        use_cpu=True,
        in_float32=True,
    )
    try:
        insert_backbone(twin, tensors, source=str(initialization.init_from))
    except ArtifactError:
        return False
    tokenizer = preparation.tokenizer
    return same_states(backbone_states(init, tokenizer), backbone_states(twin, tokenizer))


def _on_top_of(
    init: nn.Module, weights: Mapping[str, torch.Tensor], initialization: Initialization
) -> nn.Module:
    """Write the artifact's backbone as a checkpoint, and put the strategy on it."""
    folder, strategy = initialization.base_folder, initialization.strategy.name
    if folder is None:
        message = f"'{initialization.init_from}' changed weights that the strategy '{strategy}' freezes, so its backbone must be written as a checkpoint to be put under it. Say where: base_folder=…."
        raise UsageError(message)
    tokenizer = preparation_of(init).tokenizer
    if not folder.exists() or not any(folder.iterdir()):
        with published(folder) as staging:
            write_backbone(init, weights, tokenizer, staging)
            keep_plain(staging)
    elif not holds_backbone(folder, weights):
        message = f"'{folder}' is not empty and holds something else than the backbone of '{initialization.init_from}'. Choose another folder, or remove it."
        raise OutputFolderError(message)
    return initialization.prepared(str(folder))
