"""What a process holds of the machine's memory beside its tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import PreTrainedTokenizerBase

from peftune.planning.activations import few_tokens, step
from peftune.planning.batches import Batch
from peftune.planning.forward import conditions_of, training_forward
from peftune.planning.hollow import one_block, prepare_hollow
from peftune.planning.shapes import Shape
from peftune.recipe import Recipe
from peftune.strategies import Full
from peftune.tasks.judge import task_metrics

_LIMIT = Path("/sys/fs/cgroup/memory.max")


def resident_bytes() -> int:
    """Return the resident set of this process: its libraries, and what it has read so far."""
    return int(psutil.Process().memory_info().rss)


def available_bytes(device: torch.device) -> int:
    """Return how much memory a run that is started now can have.

    Args:
        device: where it would train. On a CPU that is what the system can give, within the limit of
            a container, and what this process will have given back by then.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available) + resident_bytes()
    try:
        return min(free, int(_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return free


def page_in(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
    """Train and score a tiny model once, so that the libraries' code is in memory when it is measured.

    Args:
        recipe: resolved.
        tokenizer: of the base.
        device: where a run would train.
    """
    shape = Shape("tiny", "tiny", {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 256})
    with one_block(shape) as block:
        hollow = prepare_hollow(
            shape,
            block,
            Full(),
            tokenizer=tokenizer,
            labels=("0", "1"),
            task="single-label",
            device=device,
        )
        conditions = conditions_of(hollow.model, recipe, tokens=64)
        with few_tokens(hollow.model), training_forward(hollow.model, conditions):
            step(hollow.model, Batch(2, 16))
    task_metrics(np.eye(2), np.arange(2))
