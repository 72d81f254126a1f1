"""From a base and a strategy to a guarded model that is ready to train."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.errors import GuardError, UsageError
from peftune.models.base import choose_device, load_classifier
from peftune.models.fingerprint import base_fingerprint
from peftune.models.guards import check_preparation, logits_of
from peftune.models.reference import at_strength, frozen_sha256, snapshot
from peftune.models.reference_texts import REFERENCE_TEXTS
from peftune.models.source import BaseSource, find_base, read_config
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.recipe.task import TaskName
from peftune.seeds import stream_seed
from peftune.strategies import Strategy

_ATTRIBUTE = "peftune_preparation"


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What `prepare` knows of a model and `save` needs.

    Args:
        strategy: who chose the weights that learn.
        base: where the base came from.
        base_fingerprint: hash of the base's trunk.
        tokenizer: the base's tokenizer.
        labels: label names in the order of their ids.
        max_length: longest text in tokens.
        before: the learning weights before training, by name.
        frozen_sha256: hash of the weights that do not learn.
        task: what is learned.
    """

    strategy: Strategy
    base: BaseSource
    base_fingerprint: str
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_length: int
    before: Mapping[str, torch.Tensor]
    frozen_sha256: str
    task: TaskName = "single-label"


def prepare_model(
    name_or_path: str,
    strategy: Strategy,
    *,
    labels: Sequence[str],
    revision: str | None = None,
    max_length: int = 128,
    seed: int = 0,
    use_cpu: bool = False,
    task: TaskName = "single-label",
) -> nn.Module:
    """Load a base, let the strategy choose what learns, and check the result.

    Args:
        name_or_path: hub id, local folder, or `bundled:tiny-gpt2`.
        strategy: which weights learn.
        labels: label names in the order of their ids.
        revision: commit, tag or branch of a hub id.
        max_length: longest text in tokens, at most the base's positions.
        seed: seed of the new head and of the adapter.
        use_cpu: stay on the CPU even where there is a GPU.
        task: `single-label`, `multi-label` or `regression`.

    Returns:
        The model in train mode. `preparation_of` returns what is known of it. The global random
        state is as it was.

    Raises:
        BaseModelError: the base cannot be found or read.
        GuardError: the strategy leaves the model in a wrong state.
    """
    source = find_base(name_or_path, revision)
    check_length(source, max_length)
    tokenizer = load_tokenizer(source.folder)
    device = choose_device(use_cpu=use_cpu)
    batch = reference_batch(tokenizer, device, max_length=max_length)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = load_classifier(
            source,
            tokenizer,
            strategy=strategy,
            labels=labels,
            device=device,
            seed=seed,
            kind=task,
        )
        base_logits = logits_of(model, batch)
        torch.manual_seed(stream_seed(seed, "adapter"))
        prepared = strategy.prepare(model)
        before = snapshot(prepared)
        check_preparation(prepared, strategy, batch=batch, base_logits=base_logits, before=before)
    preparation = Preparation(
        strategy=strategy,
        base=source,
        base_fingerprint=base_fingerprint(source.folder),
        tokenizer=tokenizer,
        labels=tuple(labels),
        max_length=max_length,
        before=before,
        frozen_sha256=frozen_sha256(prepared, before),
        task=task,
    )
    setattr(prepared, _ATTRIBUTE, preparation)
    return prepared.train()


def prepare(
    name_or_path: str,
    *,
    strategy: Strategy,
    labels: Sequence[str],
    revision: str | None = None,
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
        max_length: longest text in tokens; remembered for `save` and `predict`.
        seed: seed of the new head and of the adapter.
        use_cpu: stay on the CPU even where there is a GPU.
        task: `single-label`, `multi-label` or `regression`.

    Returns:
        The model, in train mode, and its tokenizer, which pads on the right with the end token.

    Raises:
        BaseModelError: the base cannot be found or read.
        GuardError: the strategy leaves the model in a wrong state.
    """
    model = prepare_model(
        name_or_path,
        strategy,
        labels=labels,
        revision=revision,
        max_length=max_length,
        seed=seed,
        use_cpu=use_cpu,
        task=task,
    )
    return model, preparation_of(model).tokenizer


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
    return preparation


@contextlib.contextmanager
def acting_as_base(model: nn.Module) -> Iterator[nn.Module]:
    """Let a prepared model be its untouched base inside the context.

    Raises:
        UsageError: the model was not made by `peftune.prepare`.
    """
    with at_strength(model, preparation_of(model).before, 0.0):
        yield model


def refuse_changed_base(model: nn.Module) -> None:
    """Refuse to compare with a base that is no longer what it was when the model was prepared.

    Raises:
        GuardError: a weight that does not learn has changed, so there is nothing to compare with.
    """
    preparation = preparation_of(model)
    if frozen_sha256(model, preparation.before) != preparation.frozen_sha256:
        message = (
            f"Frozen weights of the base '{preparation.base.name}' have changed since the model was prepared, so its "
            "forgetting cannot be measured. Train only what has requires_grad, and merge nothing before measuring."
        )
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


def check_length(source: BaseSource, max_length: int) -> None:
    """Refuse texts longer than the base has positions.

    Raises:
        UsageError: the length is not between 2 and the number of positions.
    """
    positions = int(read_config(source.folder).get("n_positions", 1024))
    if not 2 <= max_length <= positions:  # noqa: PLR2004 - one token carries no text
        message = f"max_length must be between 2 and the {positions} positions of '{source.name}' (got {max_length})."
        raise UsageError(message)
