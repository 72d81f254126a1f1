"""From measured passes to the peak that a run will report."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import nn

from peftune.models.parts import is_whole_model, trainable_parameters, trunk_of
from peftune.planning.batches import Batch, Batches
from peftune.planning.forward import Conditions, held
from peftune.planning.hollow import Hollow, mapped_weights
from peftune.planning.passes import Evaluation, Passes, Training
from peftune.planning.process import (
    CODE,
    HOLES,
    HOLES_OF_INTEGERS,
    HOLES_OF_MODEL,
    MOST_PRODUCTS,
)
from peftune.planning.shapes import Shape
from peftune.recipe import Recipe
from peftune.recipe.task import has_head

_RETURNED = 32 * 2**20
"""Bytes of a tensor from which its memory goes back to the system at once."""

_HELD_LOGITS, _PIECE = 2**24, 256
"""Language modeling: logits that are held, and tokens that are read at once where there are more."""

_STATE = {
    "adamw_torch_fused": 8.0,
    "adamw_torch": 8.0,
    "adamw_bnb_8bit": 2.0,
    "adafactor": 0.1,
    "sgd": 0.0,
}
"""Bytes that an optimizer keeps for each learning weight: two moments in float32 for AdamW."""

_FILES = 9_000
"""Bytes of an artifact's manifest, card and configuration."""

_HEADER = 130
"""Bytes that a tensor takes in the header of its file."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the bytes of a peak are.

    Args:
        process: the resident set of a process with its libraries and data; 0 on CUDA.
        weights: the base as it is held, and the learning weights.
        copies: of weights: laid out for products, and as they were before training.
        gradients: of the learning weights.
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
        hollow: the prepared model.
        conditions: how it computes.
        passes: what passes need.
        process_bytes: resident set before anything was loaded.
    """

    shape: Shape
    hollow: Hollow
    conditions: Conditions
    passes: Passes
    process_bytes: int

    @property
    def on_cpu(self) -> bool:
        """Whether it trains on a CPU."""
        return bool(trunk_of(self.hollow.model).wte.weight.device.type == "cpu")


def memory_of(facts: Facts, recipe: Recipe, batches: Batches) -> Memory:
    """Add up what a run holds, and when.

    Args:
        facts: what was measured.
        recipe: resolved, with this strategy.
        batches: what is read.
    """
    model, products = facts.hollow.model, facts.passes.training.products
    learning = list(trainable_parameters(model).values())
    gradients = sum(weight.nbytes for weight in learning)
    optimizer = round(sum(w.numel() for w in learning) * _STATE[recipe.training.optim])
    weights = _weights(facts)
    copies = facts.passes.training.laid_out + gradients
    stays = facts.conditions.keeps_gradients or recipe.training.gradient_accumulation_steps > 1
    holes = _holes(facts, facts.passes.training)

    @functools.cache
    def during(batch: Batch) -> int:
        taken = round(holes * _pass_bytes(facts, batch, recipe))
        return gradients + taken if stays else max(gradients, taken)

    most = gradients + optimizer
    for place, (batch, lengths) in enumerate(_with_lengths(batches.training)):
        state = optimizer if place else 0
        most = max(most, state + during(batch) + _code(products * lengths))
    activations = _pass_bytes(facts, batches.largest, recipe)
    beyond = _evaluation(facts, batches, recipe, left=round(holes * activations))
    if facts.on_cpu:
        beyond += _read_back(model)
    process = facts.process_bytes if facts.on_cpu else 0
    code = _code(products * len({batch.time for batch in batches.training}))
    return Memory(
        process=process,
        weights=weights,
        copies=copies,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        other=beyond + round((holes - 1) * activations) + code,
        peak=process + weights + copies + most + beyond,
    )


def _with_lengths(batches: Sequence[Batch]) -> Iterator[tuple[Batch, int]]:
    """Go through batches with the number of different ones so far."""
    seen: set[Batch] = set()
    for batch in batches:
        seen.add(batch)
        yield batch, len(seen)


def _holes(facts: Facts, passes: Training | Evaluation) -> float:
    if not facts.on_cpu:
        return 1.0
    if passes.lean:
        return HOLES
    integers = isinstance(passes, Evaluation) and _codes(facts.hollow.model)
    return HOLES_OF_INTEGERS if integers else HOLES_OF_MODEL


def _code(products: int) -> int:
    return CODE * min(products, MOST_PRODUCTS)


def _pass_bytes(facts: Facts, batch: Batch, recipe: Recipe) -> int:
    return facts.passes.training.at(batch) + _logits(facts.shape, batch, recipe)


def _logits(shape: Shape, batch: Batch, recipe: Recipe) -> int:
    """Count logits over the vocabulary, which a task without a head has: with their gradient."""
    if has_head(recipe.task):
        return 0
    everything = batch.tokens * shape.vocabulary
    if everything <= _HELD_LOGITS:
        return 8 * everything
    return 12 * _PIECE * shape.vocabulary


def _weights(facts: Facts) -> int:
    """Count the weights as they are held: of a mapped file the pages that stay after they were read."""
    model, trunk = facts.hollow.model, trunk_of(facts.hollow.model)
    halved = {id(weight) for weight in held(model, facts.conditions).values()}
    codes, in_file = _codes(model), mapped_weights(trunk, facts.hollow.folder)
    released = _released(facts, in_file)
    found = sum(buffer.nbytes for buffer in trunk.buffers())
    for weight in model.parameters():
        if id(weight) in halved:
            found += 2 * weight.numel()
        elif id(weight) not in released:
            found += weight.nbytes
    if codes and in_file:  # what they were made of was read from the file
        found += sum(weight.numel() for weight in codes) * facts.shape.stored_type.itemsize
    return found + sum(4 * len(weight) for weight in codes)  # a scale for each output


def _released(facts: Facts, in_file: set[int]) -> set[int]:
    """Find the mapped weights that are computed with from copies; their own pages are given back.

    Where checkpoints hold all weights, reading the best one back writes to them, so that they stay.
    """
    if not (isinstance(facts.hollow.model, PeftModel) and facts.passes.training.lean):
        return set()
    computing, blocks = facts.conditions.computing, trunk_of(facts.hollow.model).h
    return {
        id(weight)
        for weight in blocks.parameters()
        if id(weight) in in_file and weight.dim() > 1 and computing.copies(weight)
    }


def _codes(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that bitsandbytes holds as integers."""
    return [weight for weight in model.parameters() if weight.dtype == torch.int8]


def trunk_parameters(shape: Shape) -> int:
    """Count the weights of a plain GPT-2 without a head."""
    width, inner = shape.width, shape.inner
    block = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    return (shape.vocabulary + shape.positions) * width + shape.blocks * block + 2 * width


def _evaluation(facts: Facts, batches: Batches, recipe: Recipe, *, left: int) -> int:
    """Count what an evaluation needs beyond the memory that the training left to the process.

    Tensors larger than those of the training fit into none of the holes that it left; as long as
    it gives nothing back, they come on top.
    """
    largest, trained, evaluation = batches.evaluation[0], batches.largest, facts.passes.evaluation
    needed = evaluation.temporary.at(largest) + _logits(facts.shape, largest, recipe)
    if not facts.on_cpu:
        return max(0, needed - left)
    # It goes over the validation rows and as many training rows.
    lengths = 2 * len({batch.time for batch in batches.evaluation})
    needed = round(_holes(facts, evaluation) * needed) + _code(evaluation.products * lengths)
    size = facts.conditions.computing.dtype.itemsize
    given_back = trained.tokens * facts.shape.inner * size >= _RETURNED
    if not given_back and largest.tokens > trained.tokens:
        return needed
    return max(0, needed - left)


def _read_back(model: nn.Module) -> int:
    """Count the file of the best checkpoint, which is mapped into memory when it is read."""
    learning = trainable_parameters(model).values() if isinstance(model, PeftModel) else None
    return sum(weight.nbytes for weight in learning or model.parameters())


def artifact_bytes(model: nn.Module, recipe: Recipe, tokenizer_bytes: int) -> int:
    """Estimate the bytes of what a run saves: the learning weights, or a plain checkpoint.

    Args:
        model: prepared, hollow.
        recipe: says in which type it is stored.
        tokenizer_bytes: of the base's tokenizer, which a plain checkpoint holds too.
    """
    size = 4 if recipe.save.dtype == "float32" else 2
    whole = is_whole_model(model)
    stored: Sequence[nn.Parameter] = list(trainable_parameters(model).values())
    numbers = sum(weight.numel() for weight in stored) * size
    return numbers + len(stored) * _HEADER + _FILES + (tokenizer_bytes if whole else 0)
