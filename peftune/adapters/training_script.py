"""Prepare a model for your own training script."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.adapters.initialization import Initialization, initialize
from peftune.errors import UsageError
from peftune.files.reading import given_path
from peftune.models.loading import listed_labels
from peftune.models.prepare import preparation_of
from peftune.progress import working
from peftune.recipe.task_type import TaskName
from peftune.strategies import StrategyChoice, chosen_strategy

logger = logging.getLogger(__name__)

_PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Arguments of a forward pass that hold something for every token: (batch, time)."""

_BATCH = 2
"""Dimensions of these."""


@working("preparing the model")
def prepare(
    name_or_path: str,
    *,
    strategy: StrategyChoice,
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

    The model reads a text as `predict` will, whoever tokenized it: what follows `max_length` tokens
    is cut off, with one warning, and a text without tokens is one end token. The tokenizer knows
    the length too: `tokenizer(text, truncation=True)` cuts there.

    Args:
        name_or_path: hub id, local folder, or `bundled:tiny-gpt2`.
        strategy: which weights are trainable, such as `peftune.LoRA(r=8)`; or a name such as `"lora"`, or the
            class, with every field at its default; or a mapping such as `{"name": "lora", "r": 8}`.
        labels: label names in the order of their ids.
        revision: commit, tag or branch of a hub id.
        init_from: artifact of another task, on the same base: its backbone is taken.
        base_folder: where that backbone is written as a checkpoint, if the strategy can only be put
            on top of it: where the artifact was made by another strategy, and some weight that it
            changed is frozen in this one. The new artifact then belongs to that checkpoint.
        max_length: longest text in tokens; `save` and `predict` remember it.
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
        PluginError: no strategy of that name is installed.
        UsageError: `labels` is not a list of names, `base_folder` is needed and not given, or the
            strategy is none.
    """
    model = initialize(
        Initialization(
            name_or_path,
            chosen_strategy(strategy),
            listed_labels(labels),
            task=task,
            revision=revision,
            max_length=max_length,
            seed=seed,
            use_cpu=use_cpu,
            init_from=None if init_from is None else given_path(init_from, "init_from"),
            base_folder=None if base_folder is None else given_path(base_folder, "base_folder"),
        )
    )
    tokenizer = copy.deepcopy(preparation_of(model).tokenizer)
    tokenizer.model_max_length = max_length
    reads = _ReadsAsPredicted(max_length, pad_token_id=int(tokenizer.pad_token_id))
    model.register_forward_pre_hook(reads, with_kwargs=True)
    return model, tokenizer


class _ReadsAsPredicted:
    """Give a model the tokens that `predict` would give it, of a batch that anybody made.

    A text beyond the positions of the base would end a training in an index error, and one between
    `max_length` and that would be learned from words that no prediction reads. A text without
    tokens would be scored from padding, which depends on the batch.

    Args:
        max_length: tokens kept of each text.
        pad_token_id: what stands in the place of a token; the end token.
    """

    def __init__(self, max_length: int, *, pad_token_id: int) -> None:
        self._max_length = max_length
        self._pad_token_id = pad_token_id
        self._warned = False

    def __call__(
        self,
        module: nn.Module,  # noqa: ARG002 - a hook of torch
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Cut the arguments of a forward pass, and give a text without tokens one."""
        given = dict(kwargs)
        if len(args) == 1 and "input_ids" not in given:
            given["input_ids"], args = args[0], ()
        ids = given.get("input_ids")
        if not isinstance(ids, torch.Tensor) or ids.dim() != _BATCH or args:
            return args, given
        if ids.shape[1] > self._max_length:
            self._cut(given, length=ids.shape[1])
        elif ids.shape[1] == 0:
            given["input_ids"] = ids.new_full((ids.shape[0], 1), self._pad_token_id)
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        mask = given.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() == _BATCH:
            given["attention_mask"] = mask = mask.clone()
            mask[:, 0] += (mask.sum(dim=1) == 0).to(mask.dtype)  # (batch,)
        return args, given

    def _cut(self, given: dict[str, Any], *, length: int) -> None:
        """Keep the first tokens of every text.

        Raises:
            UsageError: they are padded on the left, where the first tokens may be padding.
        """
        mask = given.get("attention_mask")
        if isinstance(mask, torch.Tensor) and bool(((mask[:, 0] == 0) & (mask[:, -1] != 0)).any()):
            message = f"A batch of {length} tokens is longer than max_length={self._max_length} and padded on the left, so that its texts cannot be cut at their end. Tokenize with truncation=True, and pad with the tokenizer that peftune.prepare returned."
            raise UsageError(message)
        for name in _PER_TOKEN:
            value = given.get(name)
            if isinstance(value, torch.Tensor) and value.dim() == _BATCH:
                given[name] = value[:, : self._max_length]
        if not self._warned:
            self._warned = True
            logger.warning(
                "a batch has texts of up to %d tokens: what follows max_length=%d is cut off, as predict does. Tokenize with truncation=True to spare the memory, or pass prepare another max_length.",
                length,
                self._max_length,
            )
