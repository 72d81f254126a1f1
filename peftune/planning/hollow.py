"""A classifier of any shape in the memory of one block: real modules, and weights that are shared."""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import skip_init
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerBase

from peftune.models.base import load_classifier
from peftune.models.mapped import mapped_files
from peftune.models.source import BaseSource
from peftune.planning.shapes import Shape
from peftune.recipe.task import TaskName, has_head
from peftune.strategies import Strategy

_VOCABULARY = 256
"""Tokens of the block's checkpoint: an embedding is a table, whose size changes no computation."""

_TILE = 2**20
_PLACEHOLDERS = ("0", "1")


@dataclass(frozen=True, slots=True)
class Hollow:
    """A prepared classifier of a shape whose blocks share the memory of one.

    Args:
        model: in train mode.
        folder: of the block's checkpoint.
    """

    model: nn.Module
    folder: Path


@contextlib.contextmanager
def one_block(shape: Shape) -> Iterator[BaseSource]:
    """Write a random checkpoint of one block of a shape, in the type of the base's own, for a while."""
    folder = Path(tempfile.mkdtemp(prefix="peftune-plan-"))
    try:
        special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
        size = {"n_layer": 1, "vocab_size": _VOCABULARY, "architectures": None}
        config = GPT2Config.from_dict({**shape.config, **special, **size})
        config.save_pretrained(folder)
        with torch.device("meta"):
            empty = GPT2ForSequenceClassification(config)
        weights = {
            name: _noise(weight.shape).to(shape.stored_type)
            for name, weight in empty.transformer.state_dict(prefix="transformer.").items()
        }
        file = folder / "model.safetensors"
        safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
        yield BaseSource(shape.name, None, folder, "folder")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _noise(size: torch.Size) -> torch.Tensor:
    """Repeat some random numbers: no result of a computation with them is read."""
    count = size.numel()
    tile = torch.empty(min(count, _TILE)).normal_(0.0, 0.02)
    return tile.repeat(-(-count // len(tile)))[:count].view(size)


def prepare_hollow(
    shape: Shape,
    block: BaseSource,
    strategy: Strategy,
    *,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    task: TaskName,
    device: torch.device,
    checkpointing: bool = False,
) -> Hollow:
    """Load the block as the strategy loads a base, repeat it, and let the strategy choose what learns.

    Args:
        shape: what the model is to be.
        block: from `one_block`.
        strategy: which weights learn.
        tokenizer: of the recipe's base.
        labels: label names in the order of their ids.
        task: what is learned.
        device: where.
        checkpointing: recompute activations in the backward pass.

    Raises:
        PeftuneError: the strategy cannot be put on this shape.
    """
    classifies = has_head(task)
    model = load_classifier(
        block,
        tokenizer,
        strategy=strategy,
        labels=labels if classifies else _PLACEHOLDERS,
        device=device,
        seed=0,
        kind=task if classifies else "single-label",
    )
    trunk: Any = model.transformer
    trunk.h.extend(_twin(trunk.h[0], index) for index in range(1, shape.blocks))
    kind = trunk.wte.weight.dtype
    trunk.wte = skip_init(nn.Embedding, 1, shape.width, dtype=kind, device=device)
    # Memory that nobody writes to is not there: a table of all tokens costs nothing.
    trunk.wte.weight.data = torch.empty(shape.vocabulary, shape.width, dtype=kind, device=device)
    trunk.wte.weight.data[:_VOCABULARY].zero_()
    trunk.wte.num_embeddings = shape.vocabulary
    model.config.n_layer, model.config.vocab_size = shape.blocks, shape.vocabulary
    model.config.pad_token_id = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        prepared = strategy.prepare(model)
    if not classifies:
        model.score.requires_grad_(False)
    if checkpointing:
        _checkpoint(model)
    return Hollow(prepared.train(), block.folder)


def _checkpoint(model: Any) -> None:  # noqa: ANN401 - both names of one method, of a transformers model
    """Switch the recomputing of activations on, as Trainer does; transformers 5.23 renamed it."""
    own = getattr(model, "activation_checkpointing_enable", None)
    (own or model.gradient_checkpointing_enable)({"use_reentrant": False})


def _twin(block: nn.Module, index: int) -> nn.Module:
    """Copy a block's modules, with weights of their own that share its memory."""
    shared: dict[int, torch.Tensor] = {
        id(weight): _sharing(weight) for weight in block.parameters()
    }
    shared.update({id(buffer): buffer for buffer in block.buffers()})
    twin: Any = copy.deepcopy(block, shared)
    twin.attn.layer_idx = index
    copied: nn.Module = twin
    return copied


def _sharing(weight: nn.Parameter) -> nn.Parameter:
    twin: Any = torch.Tensor._make_subclass(  # noqa: SLF001 - as nn.Parameter makes its own
        type(weight), weight.data, weight.requires_grad
    )
    twin.__dict__.update(weight.__dict__)
    found: nn.Parameter = twin
    return found


def mapped_weights(module: nn.Module, folder: Path) -> set[int]:
    """Return the ids of the weights that lie in a file of a folder, mapped into memory."""
    files = [file for file in mapped_files() if file.path.startswith(f"{folder}/")]
    return {
        id(weight) for weight in module.parameters() if any(file.holds(weight) for file in files)
    }
