"""From measured passes to the peak that a run will report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.models.architecture import backbone_of, is_whole_model, trainable_parameters
from peftune.planning.activations import Passes
from peftune.planning.batches import Batch, Batches
from peftune.planning.shapes import Shape, ShapeModel, mapped_weights, one_block, prepare_shape
from peftune.planning.training_step import (
    Conditions,
    bfloat16_weights,
    conditions_of,
    few_tokens,
    step,
    training_forward,
)
from peftune.recipe import Recipe
from peftune.strategies import Full
from peftune.tasks import methods_of
from peftune.training.checkpoints import OPTIMIZER_BYTES, saved_bytes

_HOLES, _OF_LENGTH, _MOST_HOLES = 1.2, 0.05, 2.2
_HOLES_OF_MODEL = 2.0
_HOLES_OF_INTEGERS = 3.0
"""Memory that passes take from the system for each byte that their tensors need at once.

The C library cannot always reuse what a tensor left, the less so the more machine code of other
lengths lies between. Found as peaks of runs less what else was there, for four strategies on bases
of 5, 45 and 124 million weights: 1.1 to 1.4 with three lengths, 1.8 to 2.6 with 19 and more. Where
the model's own forward is used, 1.7 to 2.1 while training; bitsandbytes, which evaluates a model of
integers, makes tensors that are not seen here: 2 to 6."""

_CODE = 575_000
"""Bytes of machine code that oneDNN makes for a product of sizes that it has not met, and keeps.

Measured as the growth of the heap's allocations: 540,000 to 595,000 at widths of 256 to 3,072, in
float32 and bfloat16."""

_MOST_PRODUCTS = 1024
"""Products whose machine code oneDNN keeps."""


def holes(*, fast: bool, lengths: int) -> float:
    """Return the memory that training takes for each byte of a pass's tensors.

    Args:
        fast: whether the fast path computes, and not the model's own forward.
        lengths: different sizes of a batch so far.
    """
    return min(_MOST_HOLES, _HOLES + _OF_LENGTH * lengths) if fast else _HOLES_OF_MODEL


def holes_of_evaluation(*, fast: bool, integers: bool) -> float:
    """Return the memory that an evaluation takes for each byte of a pass's tensors.

    Args:
        fast: whether the fast path computes, and not the model's own forward.
        integers: whether the base is held in 8-bit integers.
    """
    own = _HOLES_OF_INTEGERS if integers else _HOLES_OF_MODEL
    return _HOLES + _OF_LENGTH if fast else own


def code_bytes(products: int) -> int:
    """Return the bytes of machine code for so many products of different sizes."""
    return _CODE * min(products, _MOST_PRODUCTS)


def weight_bytes(prepared: ShapeModel, conditions: Conditions, *, fast: bool) -> int:
    """Count the weights as they are held: of a mapped file the pages that stay after they were read.

    Args:
        prepared: the prepared model.
        conditions: how it computes.
        fast: whether the fast path computes, and not the model's own forward.
    """
    model, backbone = prepared.model, backbone_of(prepared.model)
    halved = {id(weight) for weight in bfloat16_weights(model, conditions).values()}
    codes, in_file = integer_weights(model), mapped_weights(backbone, prepared.folder)
    released = _released(model, conditions, in_file) if fast else set()
    found = sum(buffer.nbytes for buffer in backbone.buffers())
    for weight in model.parameters():
        if id(weight) in halved:
            found += 2 * weight.numel()
        elif id(weight) not in released:
            found += weight.nbytes
    return found + sum(4 * len(weight) for weight in codes)  # a scale for each output


def _released(model: nn.Module, conditions: Conditions, in_file: set[int]) -> set[int]:
    """Find the mapped weights that are computed with from copies; their own pages are given back.

    Where checkpoints hold all weights, reading the best one back writes to them, so that they stay.
    """
    if not isinstance(model, PeftModel):
        return set()
    return {
        id(weight)
        for weight in backbone_of(model).h.parameters()
        if id(weight) in in_file and weight.dim() > 1 and conditions.computing.copies(weight)
    }


def copied_before(prepared: ShapeModel, conditions: Conditions) -> int:
    """Count the trainable parameters that are copied before the training: all that no mapped file holds.

    Args:
        prepared: the prepared model.
        conditions: how it computes; who looks back while it trains has the file's pages in memory.
    """
    backbone = backbone_of(prepared.model)
    in_file = set() if conditions.looks_back else mapped_weights(backbone, prepared.folder)
    if in_file:
        in_file.add(id(backbone.wte.weight))  # this model's own stands for one that lies there
    learning = trainable_parameters(prepared.model).values()
    return sum(weight.nbytes for weight in learning if id(weight) not in in_file)


def integer_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that bitsandbytes holds as integers."""
    return [weight for weight in model.parameters() if weight.dtype == torch.int8]


def backbone_parameters(shape: Shape) -> int:
    """Count the weights of a plain GPT-2 without a head."""
    width, inner = shape.width, shape.inner
    block = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    return (shape.vocabulary + shape.positions) * width + shape.blocks * block + 2 * width


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
        prepared = prepare_shape(
            shape,
            block,
            Full(),
            tokenizer=tokenizer,
            labels=("0", "1"),
            task="single-label",
            device=device,
        )
        conditions = conditions_of(prepared.model, recipe, tokens=64)
        with few_tokens(prepared.model), training_forward(prepared.model, conditions):
            step(prepared.model, Batch(2, 16))
    methods_of("single-label").metrics(np.eye(2), np.arange(2))


_RETURNED = 32 * 2**20
"""Bytes of a tensor from which its memory goes back to the system at once."""

_HELD_LOGITS, _PIECE = 2**24, 256
"""Language modeling: logits that are held, and tokens that are read at once where there are more."""

_FILES = 9_000
"""Bytes of an artifact's manifest, card and configuration."""

_HEADER = 130
"""Bytes that a tensor takes in the header of its file."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the bytes of a peak are.

    Args:
        process: the resident set of a process with its libraries and data; 0 on CUDA.
        weights: the base as it is held, and the trainable parameters.
        copies: of weights: laid out for products, and as they were before training where no mapped
            file has them.
        gradients: of the trainable parameters.
        optimizer: state of the optimizer.
        activations: most that a forward and backward pass of the training keeps and needs.
        other: machine code that oneDNN makes, holes of the heap, an evaluation's larger batches,
            and the best checkpoint when it is read back.
        peak: most at any time; less than the sum where parts are not there at once.
    """

    process: int
    weights: int
    copies: int
    gradients: int
    optimizer: int
    activations: int
    other: int
    peak: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a strategy on a shape before memory is added up.

    Args:
        shape: of the base.
        prepared: the prepared model.
        conditions: how it computes.
        passes: what passes need.
        process_bytes: resident set before anything was loaded.
    """

    shape: Shape
    prepared: ShapeModel
    conditions: Conditions
    passes: Passes
    process_bytes: int

    @property
    def on_cpu(self) -> bool:
        """Whether it trains on a CPU."""
        return bool(backbone_of(self.prepared.model).wte.weight.device.type == "cpu")


def memory_of(facts: Facts, recipe: Recipe, batches: Batches) -> Memory:
    """Add up what a run holds, and when.

    Args:
        facts: what was measured.
        recipe: resolved, with this strategy.
        batches: what is read.
    """
    model, training = facts.prepared.model, facts.passes.training
    learning = list(trainable_parameters(model).values())
    gradients = sum(weight.nbytes for weight in learning)
    optimizer = round(sum(w.numel() for w in learning) * OPTIMIZER_BYTES[recipe.training.optim])
    weights = weight_bytes(facts.prepared, facts.conditions, fast=training.fast)
    copies = training.laid_out + copied_before(facts.prepared, facts.conditions)
    stays = facts.conditions.keeps_gradients or recipe.training.gradient_accumulation_steps > 1

    def at(batch: Batch, lengths: int) -> int:
        share = holes(fast=training.fast, lengths=lengths) if facts.on_cpu else 1.0
        taken = round(share * _pass_bytes(facts, batch, recipe))
        during = gradients + taken if stays else max(gradients, taken)
        return during + code_bytes(training.products * lengths)

    lengths = _lengths(batches.training)
    later = [optimizer + at(batch, count) for batch, count in lengths.items()]
    most = max(gradients + optimizer, at(batches.training[0], 1), *later)
    beyond = _evaluation(facts, batches, recipe)
    if facts.on_cpu:
        beyond += saved_bytes(model)  # the best checkpoint's, mapped when it is read back
    process = facts.process_bytes if facts.on_cpu else 0
    activations = _pass_bytes(facts, batches.largest, recipe)
    return Memory(
        process=process,
        weights=weights,
        copies=copies,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        other=beyond + max(0, most - gradients - optimizer - activations),
        peak=process + weights + copies + most + beyond,
    )


def _lengths(batches: Sequence[Batch]) -> dict[Batch, int]:
    """Return how many different batches were read when each was read last, after the first one."""
    seen, found = {batches[0]}, {}
    for batch in batches[1:]:
        seen.add(batch)
        found[batch] = len(seen)
    return found


def _pass_bytes(facts: Facts, batch: Batch, recipe: Recipe) -> int:
    return facts.passes.training.at(batch) + _logits(facts.shape, batch, recipe)


def _logits(shape: Shape, batch: Batch, recipe: Recipe) -> int:
    """Count logits over the vocabulary, which a task without a head has: with their gradient."""
    if recipe.task_type.has_head:
        return 0
    everything = batch.tokens * shape.vocabulary
    if everything <= _HELD_LOGITS:
        return 8 * everything
    return 12 * _PIECE * shape.vocabulary


def _evaluation(facts: Facts, batches: Batches, recipe: Recipe) -> int:
    """Count what an evaluation needs beyond the memory that the training left to the process.

    Tensors larger than those of the training fit into none of the holes that it left; as long as
    it gives nothing back, they come on top.
    """
    largest, trained, evaluation = batches.evaluation[0], batches.largest, facts.passes.evaluation
    needed = evaluation.temporary.at(largest) + _logits(facts.shape, largest, recipe)
    left = _pass_bytes(facts, trained, recipe)
    if not facts.on_cpu:
        return max(0, needed - left)
    integers = bool(integer_weights(facts.prepared.model))
    needed = round(holes_of_evaluation(fast=evaluation.fast, integers=integers) * needed)
    # It goes over the validation rows and as many training rows.
    lengths = 2 * len({batch.time for batch in batches.evaluation})
    needed += code_bytes(evaluation.products * lengths)
    size = facts.conditions.computing.dtype.itemsize
    given_back = trained.tokens * facts.shape.inner * size >= _RETURNED
    if not given_back and largest.tokens > trained.tokens:
        return needed
    return max(0, needed - left)


def artifact_bytes(model: nn.Module, recipe: Recipe, tokenizer_bytes: int) -> int:
    """Estimate the bytes of what a run saves: the trainable parameters, or a plain checkpoint.

    Args:
        model: prepared, of a shape.
        recipe: says in which type it is stored.
        tokenizer_bytes: of the base's tokenizer, which a plain checkpoint holds too.
    """
    size = 4 if recipe.save.dtype == "float32" else 2
    whole = is_whole_model(model)
    stored: Sequence[nn.Parameter] = list(trainable_parameters(model).values())
    numbers = sum(weight.numel() for weight in stored) * size
    return numbers + len(stored) * _HEADER + _FILES + (tokenizer_bytes if whole else 0)
