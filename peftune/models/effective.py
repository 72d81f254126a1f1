"""The trunk that a tuned model amounts to: plain GPT-2 weights, whatever adapter made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from peftune.errors import GuardError
from peftune.models.base import hidden_load_report
from peftune.models.merged import merged_into_base
from peftune.models.parts import evaluating, trunk_of
from peftune.models.prepare import preparation_of, reference_batch

MERGE_TOLERANCE = 1e-4
"""Largest change of a hidden state by merging alone, relative to the largest one (or to 1)."""


def trunk_states(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return the last hidden states of a few fixed texts: (rows, time, hidden), on the CPU."""
    trunk = trunk_of(model)
    length = min(64, int(trunk.config.n_positions))
    batch = reference_batch(tokenizer, trunk.ln_f.weight.device, max_length=length)
    with evaluating(model):
        states: torch.Tensor = trunk(**batch, use_cache=False).last_hidden_state
    return states.float().cpu()


def same_states(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Say whether two trunks compute the same up to rounding."""
    largest = max(1.0, float(first.abs().max()))
    return bool((first - second).abs().max() <= MERGE_TOLERANCE * largest)


def effective_trunk(model: nn.Module) -> dict[str, torch.Tensor]:
    """Merge what a model has learned into its trunk, and return the trunk's weights.

    Args:
        model: a prepared model whose base is held in float32; it is taken apart.

    Returns:
        Every weight by GPT-2's own name, on the CPU, float32.

    Raises:
        UsageError: what was learned cannot be written as weights of a plain GPT-2.
    """
    preparation = preparation_of(model)
    name, tokenizer = preparation.strategy.name, preparation.tokenizer
    states = trunk_states(model, tokenizer)
    plain = merged_into_base(model)
    weights = {key: weight.detach() for key, weight in trunk_of(plain).named_parameters()}
    if not same_states(states, trunk_states(plain, tokenizer)):
        message = f"Merging what the strategy '{name}' learned changes what the model computes; its weights cannot be the start of another model."
        raise GuardError(message)
    return {key: weight.cpu().clone() for key, weight in weights.items()}


def copied_into(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    """Copy a trunk's weights into a prepared model, if all that differs is free to learn.

    Args:
        model: a prepared model.
        weights: from `effective_trunk`.

    Returns:
        Whether they were copied; if not, the model is untouched.
    """
    own = dict(trunk_of(model).named_parameters())
    if set(own) != set(weights):
        return False
    for name, weight in own.items():
        if not (weight.requires_grad or torch.equal(weight.detach().cpu(), weights[name])):
            return False
    with torch.no_grad():
        for name, weight in own.items():
            if weight.requires_grad:
                weight.copy_(weights[name])
    return True


def write_trunk(
    model: nn.Module,
    weights: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> None:
    """Write a trunk as a plain GPT-2 checkpoint with its tied language-model head.

    Args:
        model: any model around a trunk of the same configuration.
        weights: its weights, by GPT-2's own names.
        tokenizer: its tokenizer.
        folder: where to.
    """
    with hidden_load_report():
        language_model(model, weights).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def holds_trunk(folder: Path, weights: Mapping[str, torch.Tensor]) -> bool:
    """Say whether a folder is a checkpoint of exactly these weights, as `write_trunk` writes it."""
    file = folder / "model.safetensors"
    if not file.is_file():
        return False
    try:
        found = load_file(file)
    except SafetensorError:
        return False
    named = {f"{GPT2LMHeadModel.base_model_prefix}.{key}": one for key, one in weights.items()}
    return set(found) == set(named) and all(
        torch.equal(found[key], one) for key, one in named.items()
    )


def language_model(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> GPT2LMHeadModel:
    """Build a plain language model of a trunk's weights, with the configuration of a base."""
    config = type(trunk_of(model).config)(
        **{
            key: value
            for key, value in trunk_of(model).config.to_dict().items()
            if key not in _OF_A_CLASSIFIER
        }
    )
    with torch.device("meta"):
        plain: GPT2LMHeadModel = GPT2LMHeadModel(config)
    plain.transformer.load_state_dict(dict(weights), strict=True, assign=True)
    plain.tie_weights()
    plain.eval()
    return plain


_OF_A_CLASSIFIER = (
    "architectures",
    "id2label",
    "label2id",
    "pad_token_id",
    "problem_type",
    "quantization_config",
    "use_cache",
)
