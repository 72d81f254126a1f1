"""Prepare a model: load a base, let a strategy choose what is trainable, check it, remember how it was made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.errors import GuardError, UsageError
from peftune.fastpath.lora_layers import keep_weights
from peftune.fastpath.mapped_memory import release_mapped
from peftune.files.hash_cache import remember_place
from peftune.models.architecture import head_of, trainable_parameters
from peftune.models.base_files import BaseSource, check_length, find_base
from peftune.models.fingerprint import BaseIdentity, Recorded, Sha256, base_fingerprint
from peftune.models.guards import check_preparation, logits_of
from peftune.models.interpolation import at_strength, beside, frozen_sha256, snapshot
from peftune.models.loading import choose_device, load_classifier
from peftune.models.tokenizer import (
    REFERENCE_TEXTS,
    encode_texts,
    load_tokenizer,
    remembered_sha256,
)
from peftune.recipe.task_type import TaskName, has_head
from peftune.seeds import stream_seed
from peftune.strategies import Strategy

_ATTRIBUTE = "peftune_preparation"
_PLACEHOLDERS = ("0", "1")
"""Labels of the head that takes no part in a task without one."""

InitializedAs = Literal["adapter", "weights", "base"]
"""What became of the artifact that a model is initialized from.

`adapter`: the same strategy's adapter, which is trained further; `weights`: it was copied into
trainable weights; `base`: it is the base that the strategy was put on.
"""


class InitializedFrom(Recorded):
    """The artifact that a model is initialized from, as its own manifest records it.

    `sha256` is the digest of that artifact, `task_name` its task type, and `origin` the base that
    the user named, which forgetting is measured against.
    """

    kind: InitializedAs
    sha256: Sha256
    task_name: TaskName
    origin: BaseIdentity


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What `prepare` knows of a model and `save` needs.

    Args:
        strategy: who chose the trainable weights.
        base: where the base came from.
        base_fingerprint: hash of the base's backbone.
        tokenizer: the base's tokenizer.
        labels: label names in the order of their ids.
        max_length: longest text in tokens.
        before: the trainable weights before training, by name.
        frozen_sha256: hash of the frozen weights.
        task: the task type.
        initialized_from: the artifact that the model is initialized from; None for the base itself.
        origin: the base that the user named; it is not `base` where that is an artifact's backbone.
    """

    strategy: Strategy
    base: BaseSource
    base_fingerprint: str
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_length: int
    before: Mapping[str, torch.Tensor]
    frozen_sha256: str
    origin: BaseSource
    task: TaskName = "single-label"
    initialized_from: InitializedFrom | None = None


def prepare_model(
    base: str | BaseSource,
    strategy: Strategy,
    *,
    labels: Sequence[str],
    task: TaskName = "single-label",
    revision: str | None = None,
    max_length: int = 128,
    seed: int = 0,
    use_cpu: bool = False,
    in_float32: bool = False,
) -> nn.Module:
    """Load a base, let the strategy choose what is trainable, and check the result.

    Args:
        base: hub id, local folder, or `bundled:tiny-gpt2`; or where one was found.
        strategy: which weights are trainable.
        labels: label names in the order of their ids; none for language modeling.
        task: the task type. For language modeling the classifier's head is frozen: it takes no
            part, and only the backbone is trained.
        revision: commit, tag or branch of a hub id.
        max_length: longest text in tokens, at most the base's positions.
        seed: seed of the new head and of the adapter.
        use_cpu: stay on the CPU even where there is a GPU.
        in_float32: hold the base in float32 even where the strategy would not.

    Returns:
        The model in train mode. `preparation_of` returns what is known of it. The global random
        state is as it was.

    Raises:
        BaseModelError: the base cannot be found or read.
        GuardError: the strategy leaves the model in a wrong state.
        UsageError: the strategy trains nothing that the task uses.
    """
    refuse_nothing_to_learn(strategy, task)
    source = base if isinstance(base, BaseSource) else find_base(base, revision)
    check_length(source, max_length)
    tokenizer = load_tokenizer(source.folder)
    fingerprint = base_fingerprint(source.folder)
    if source.kind == "folder":
        hashes = (fingerprint, remembered_sha256(tokenizer, source.folder))
        remember_place((*hashes, source.name), source.folder)
    device = choose_device(use_cpu=use_cpu)
    batch = reference_batch(tokenizer, device, max_length=max_length)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = load_classifier(
            source,
            tokenizer,
            strategy=strategy,
            labels=labels if has_head(task) else _PLACEHOLDERS,
            device=device,
            seed=seed,
            kind=task if has_head(task) else "single-label",
            in_float32=in_float32,
        )
        base_logits = logits_of(model, batch)
        torch.manual_seed(stream_seed(seed, "adapter"))
        prepared = strategy.prepare(model)
        keep_weights(prepared)
        before = snapshot(prepared)
        check_preparation(prepared, strategy, batch=batch, base_logits=base_logits, before=before)
    if not has_head(task):
        head_of(prepared).requires_grad_(False)
        before = {name: before[name] for name in trainable_parameters(prepared)}
    preparation = Preparation(
        strategy=strategy,
        base=source,
        base_fingerprint=fingerprint,
        tokenizer=tokenizer,
        labels=tuple(labels),
        max_length=max_length,
        before=before,
        frozen_sha256=frozen_sha256(prepared, before),
        origin=source,
        task=task,
    )
    setattr(prepared, _ATTRIBUTE, preparation)
    # The checks have read all of them.
    release_mapped([*prepared.parameters(), *before.values()], whole_files=True)
    return prepared.train()


def note_initialization(
    model: nn.Module, initialized_from: InitializedFrom, *, origin: BaseSource
) -> None:
    """Remember which artifact a prepared model is initialized from."""
    known = preparation_of(model)
    noted = dataclasses.replace(known, initialized_from=initialized_from, origin=origin)
    setattr(model, _ATTRIBUTE, noted)


def refuse_nothing_to_learn(strategy: Strategy, task: TaskName) -> None:
    """Refuse a strategy whose only trainable weights are those of a head that the task lacks.

    Raises:
        UsageError: nothing would be trainable.
    """
    if not (has_head(task) or strategy.trains_backbone):
        message = f"The strategy '{strategy.name}' trains the classification head alone, and 'task: {task}' has none. Choose a strategy that trains the backbone, such as lora or full."
        raise UsageError(message)


def is_prepared(model: nn.Module) -> bool:
    """Say whether `prepare` made a model."""
    return isinstance(model.__dict__.get(_ATTRIBUTE), Preparation)


def preparation_of(model: nn.Module) -> Preparation:
    """Return what is known of a model that `prepare` made.

    Raises:
        UsageError: the model was not made by `peftune.prepare`.
    """
    preparation = model.__dict__.get(_ATTRIBUTE)
    if not isinstance(preparation, Preparation):
        message = f"This {type(model).__name__} was not made by peftune.prepare, so its base and labels are unknown. Pass the model that peftune.prepare returned."
        raise UsageError(message)
    before = beside(preparation.before, model)
    if before is preparation.before:
        return preparation
    setattr(model, _ATTRIBUTE, dataclasses.replace(preparation, before=before))
    return preparation_of(model)


@contextlib.contextmanager
def acting_as_base(model: nn.Module) -> Iterator[nn.Module]:
    """Let a prepared model be its untouched base inside the context.

    Raises:
        UsageError: the model was not made by `peftune.prepare`.
    """
    with at_strength(model, preparation_of(model).before, 0.0):
        yield model


def refuse_changed_base(
    model: nn.Module, impossible: str = "its forgetting cannot be measured"
) -> None:
    """Refuse a base that is no longer what it was when the model was prepared, and say what it prevents.

    Raises:
        GuardError: a frozen weight has changed.
    """
    preparation = preparation_of(model)
    if frozen_sha256(model, preparation.before) != preparation.frozen_sha256:
        message = f"Frozen weights of the base '{preparation.base.name}' have changed since the model was prepared, so {impossible}. Train only what has requires_grad, and merge nothing before measuring or saving."
        raise GuardError(message)


def reference_batch(
    tokenizer: PreTrainedTokenizerBase, device: torch.device, *, max_length: int, rows: int = 4
) -> dict[str, torch.Tensor]:
    """Tokenize the first reference texts as one right-padded batch: (rows, time), int64."""
    encoded = encode_texts(tokenizer, list(REFERENCE_TEXTS[:rows]), max_length=max_length)
    padded = tokenizer.pad({"input_ids": encoded}, return_tensors="pt")
    return {
        "input_ids": padded["input_ids"].to(device),
        "attention_mask": padded["attention_mask"].to(device),
    }


def based_on_artifact(model: nn.Module) -> bool:
    """Say whether a model with its adapter disabled is another artifact, and not the user's base."""
    initialized_from = preparation_of(model).initialized_from
    return initialized_from is not None and initialized_from.kind == "base"


def compared_with(model: nn.Module) -> nn.Module:
    """Return a model whose untouched base is the one that forgetting is measured against.

    Returns:
        The model itself; or, where its base is another artifact, the user's base, loaded by itself
        and prepared in the same precision.
    """
    return (
        prepared_again(model, preparation_of(model).origin) if based_on_artifact(model) else model
    )


def prepared_again(model: nn.Module, source: BaseSource | None = None) -> nn.Module:
    """Prepare the base of a model again from its files, or another one in its place."""
    preparation = preparation_of(model)
    return prepare_model(
        str((source or preparation.base).folder),
        preparation.strategy,
        labels=preparation.labels,
        task=preparation.task,
        max_length=preparation.max_length,
        use_cpu=next(model.parameters()).device.type == "cpu",
    )
