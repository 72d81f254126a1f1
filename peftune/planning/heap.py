"""What a process holds of the machine's memory beside its tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from peftune.models.parts import trainable_parameters, trunk_of
from peftune.planning.activations import (
    Passes,
    evaluate,
    few_tokens,
    held_so,
    step,
)
from peftune.planning.batches import Batch, Batches
from peftune.planning.forward import Conditions, training_forward
from peftune.planning.hollow import Hollow
from peftune.planning.sample import only_blocks
from peftune.training.memory import PeakMemory, release_freed

_LIMIT = Path("/sys/fs/cgroup/memory.max")
_LENGTHS = 4
"""Lengths that a mean is taken over."""

_PRODUCTS = 600e9
"""Multiplications and additions for one strategy: some seconds of two cores."""

_FEWEST = 3
"""Blocks at least. The more there are, the more holes an unfused forward pass leaves."""

_SETTLING = 16
"""Tokens of a pass that makes what the first one makes."""


class _Allocated(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


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


@dataclass(frozen=True, slots=True)
class Heap:
    """How much more than its tensors a process holds.

    Args:
        training: memory that a training pass took from the system, for each byte of its tensors.
        evaluation: the same of an evaluation's pass.
        code: bytes of machine code for each further length of a batch.
    """

    training: float = 1.0
    evaluation: float = 1.0
    code: int = 0


def measure_heap(
    hollow: Hollow, conditions: Conditions, passes: Passes, batches: Batches, *, turn: int
) -> Heap:
    """Run the largest passes, and see what the process grows by.

    The C library leaves holes between tensors, into which the next ones do not fit: a forward pass
    of many small steps holds several times what it needs.

    Args:
        hollow: of the recipe's own shape.
        conditions: how it computes.
        passes: what passes need.
        batches: what is read.
        turn: how many strategies were measured before. They share what oneDNN made for them, so
            that each must be measured on batches of other lengths.
    """
    model = hollow.model
    if trunk_of(model).wte.weight.device.type != "cpu":
        return Heap()
    trained, evaluated = batches.largest, batches.evaluation[0]
    blocks = _affordable(model, 3 * trained.tokens + evaluated.tokens)
    trained, evaluated = (_fewer(model, one, len(blocks)) for one in (trained, evaluated))
    share = len(blocks) / len(trunk_of(model).h)
    with few_tokens(model), only_blocks(model, blocks), held_so(model, conditions):
        needed = passes.saved.at(trained) * share + passes.temporary.at(trained)
        needed += sum(weight.nbytes for weight in trainable_parameters(model).values())
        with training_forward(model, conditions):
            step(model, trained)
            release_freed()
            training = _growth(lambda: step(model, trained)) / max(needed, 1)
            evaluate(model, Batch(1, _SETTLING))
            # After the training, as in a run: some of what is needed fits into what that left.
            evaluation = _growth(lambda: evaluate(model, evaluated))
            code = _code(model, _shorter(trained, turn))
    live = max(passes.evaluation.at(evaluated), 1)
    return Heap(_likely(training), _likely(evaluation / live), code)


def _shorter(batch: Batch, turn: int) -> list[Batch]:
    """Return a few shorter batches, for each turn others as long as there are any."""
    lengths = range(batch.time - 1, 1, -1)
    start = turn * _LENGTHS % max(1, len(lengths) - _LENGTHS)
    return [Batch(batch.rows, time) for time in lengths[start : start + _LENGTHS]]


def _affordable(model: nn.Module, tokens: int) -> list[nn.Module]:
    """Take as many blocks, from the first to the last, as are computed in some seconds."""
    blocks = list(trunk_of(model).h)
    count = int(_PRODUCTS / (_block_weights(model) * tokens))
    count = min(len(blocks), max(_FEWEST, count))
    places = {round(i * (len(blocks) - 1) / max(1, count - 1)) for i in range(count)}
    return [blocks[place] for place in sorted(places)]


def _fewer(model: nn.Module, batch: Batch, blocks: int) -> Batch:
    """Take as many rows of a batch as are computed in that time, if not all of them."""
    rows = int(_PRODUCTS / (3 * _block_weights(model) * blocks * batch.time))
    return Batch(max(1, min(batch.rows, rows)), batch.time)


def _block_weights(model: nn.Module) -> int:
    return 12 * int(trunk_of(model).config.n_embd) ** 2


def _growth(act: Callable[[], object]) -> int:
    """Return the bytes that the process takes from the system while it acts."""
    before = resident_bytes()
    with PeakMemory(torch.device("cpu"), release=False) as memory:
        act()
    return 0 if memory.peak_bytes is None else memory.peak_bytes - before


def _likely(ratio: float) -> float:
    """Keep a ratio within what was ever seen; small batches fit into memory that is free already."""
    return min(max(ratio, 1.1), 12.0)


def _code(model: nn.Module, others: Sequence[Batch]) -> int:
    """Measure what the machine code takes that oneDNN makes for each length, and keeps.

    Args:
        model: as it trains, of a few blocks.
        others: batches of lengths that were not computed yet.

    Returns:
        Bytes for each further length; 0 where the C library does not tell.
    """
    before = _allocated()
    for batch in others:
        step(model, batch)
    return max(0, _allocated() - before) // max(1, len(others))


def _allocated() -> int:
    """Return the bytes that are allocated of this process's heap."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    ask.restype = _Allocated
    found = ask()
    return int(found.uordblks) + int(found.hblkhd)
