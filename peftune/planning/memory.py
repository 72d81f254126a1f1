"""From measured passes to the peak that a run will report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from peftune.models.parts import is_whole_model, trainable_parameters, trunk_of
from peftune.planning.batches import Batch, Batches
from peftune.planning.forward import Conditions
from peftune.planning.heap import code_bytes, holes, holes_of_evaluation
from peftune.planning.hollow import Hollow
from peftune.planning.passes import Passes
from peftune.planning.shapes import Shape
from peftune.planning.weights import copied_before, integer_weights, weight_bytes
from peftune.recipe import Recipe
from peftune.recipe.task import has_head
from peftune.training.checkpoints import OPTIMIZER_BYTES, saved_bytes

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
        weights: the base as it is held, and the learning weights.
        copies: of weights: laid out for products, and as they were before training where no mapped
            file has them.
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
    model, training = facts.hollow.model, facts.passes.training
    learning = list(trainable_parameters(model).values())
    gradients = sum(weight.nbytes for weight in learning)
    optimizer = round(sum(w.numel() for w in learning) * OPTIMIZER_BYTES[recipe.training.optim])
    weights = weight_bytes(facts.hollow, facts.conditions, lean=training.lean)
    copies = training.laid_out + copied_before(facts.hollow, facts.conditions)
    stays = facts.conditions.keeps_gradients or recipe.training.gradient_accumulation_steps > 1

    def at(batch: Batch, lengths: int) -> int:
        share = holes(lean=training.lean, lengths=lengths) if facts.on_cpu else 1.0
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
    if has_head(recipe.task):
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
    integers = bool(integer_weights(facts.hollow.model))
    needed = round(holes_of_evaluation(lean=evaluation.lean, integers=integers) * needed)
    # It goes over the validation rows and as many training rows.
    lengths = 2 * len({batch.time for batch in batches.evaluation})
    needed += code_bytes(evaluation.products * lengths)
    size = facts.conditions.computing.dtype.itemsize
    given_back = trained.tokens * facts.shape.inner * size >= _RETURNED
    if not given_back and largest.tokens > trained.tokens:
        return needed
    return max(0, needed - left)


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
