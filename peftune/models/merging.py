"""Merge an adapter into its base: plain GPT-2 weights, and the checkpoints that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

from peftune.errors import GuardError, UsageError
from peftune.models.architecture import backbone_of, evaluating, in_float32, unwrapped
from peftune.models.loading import hidden_load_report
from peftune.models.prepare import preparation_of, reference_batch

_IN_FRONT = "it learns virtual tokens in front of every text, which are not weights of a base"
_GARBAGE = (
    "it runs on an 8-bit base alone, where a merge is off by as much as the logits themselves"
)

UNMERGEABLE: Mapping[str, str] = {
    "ADAPTION_PROMPT": "it learns prompts that attention reads through a gate, which are not weights of a base",
    "CARTRIDGE": _IN_FRONT,
    "CPT": _IN_FRONT,
    "HRA": _GARBAGE,
    "MULTITASK_PROMPT_TUNING": _IN_FRONT,
    "PEANUT": _GARBAGE,
    "POLY": "it mixes its updates anew for each task",
    "PREFIX_TUNING": _IN_FRONT,
    "PROMPT_TUNING": _IN_FRONT,
    "P_TUNING": _IN_FRONT,
    "SHADOW": "it is a second network beside the base",
    "XLORA": "it mixes its updates anew for each text",
}
"""PEFT methods that no merge can be right of, by PEFT's own name, and why."""

_RANDOM_START = "pissa_niter_"


def merged_into_base(model: nn.Module) -> PreTrainedModel:
    """Merge what a prepared model has learned into its base.

    Args:
        model: a prepared model whose base is held in float32; it is taken apart.

    Returns:
        The plain transformers model that is left; whether it computes the same is for the caller
        to check. A model without adapters is returned as it is.

    Raises:
        UsageError: what was learned cannot be written as weights of a plain GPT-2, or the base is
            held in integers, where merging rounds the sum anew.
    """
    strategy = preparation_of(model).strategy.name
    if getattr(model, "is_quantized", False):
        message = f"What the strategy '{strategy}' learned is not merged into a base held in integers: it would be rounded anew, and logits change by 0.05 to 0.13. Merge into the base held in float32."
        raise UsageError(message)
    plain = unwrapped(_merged_by_peft(model, strategy) if isinstance(model, PeftModel) else model)
    with torch.device("meta"):
        expected = {name for name, _ in type(plain)(plain.config).named_parameters()}
    if set(dict(plain.named_parameters())) != expected:
        raise UsageError(_not_mergeable(strategy, "it leaves weights of its own beside them"))
    return plain


def write_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a plain classifier with its tokenizer, as `pipeline("text-classification")` opens it.

    Args:
        model: the classifier.
        tokenizer: its tokenizer.
        folder: where to.
        dtype: what the file holds the weights as; transformers opens them in the model's own type.
    """
    stored = {name: weight.to(dtype) for name, weight in model.state_dict().items()}
    kept, model.config.use_cache = model.config.use_cache, True
    try:
        with hidden_load_report():
            model.save_pretrained(folder, state_dict=stored)
    finally:
        model.config.use_cache = kept
    tokenizer.save_pretrained(folder)


def _merged_by_peft(model: PeftModel, strategy: str) -> nn.Module:
    if reason := _reason_against(model):
        raise UsageError(_not_mergeable(strategy, reason))
    try:
        with in_float32(model):
            merged: nn.Module = model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError, AttributeError) as error:
        reason = f"PEFT does not merge {_method(model)}"
        raise UsageError(_not_mergeable(strategy, reason)) from error
    return merged


def _reason_against(model: PeftModel) -> str | None:
    """Say why a merge would be wrong; None where nothing is known against it."""
    method, config = _method(model), _config(model)
    if method in UNMERGEABLE:
        return f"its method is PEFT's {method}, and {UNMERGEABLE[method]}"
    if not isinstance(model.base_model, BaseTuner):
        return f"its method is PEFT's {method}, which changes no weight of the base"
    if str(getattr(config, "init_lora_weights", "")).startswith(_RANDOM_START):
        return f"its method is PEFT's {method} with init_lora_weights {config.init_lora_weights}, which changes the base by a random decomposition that no load repeats"
    if getattr(config, "alora_invocation_tokens", None):
        return f"its method is PEFT's {method} with alora_invocation_tokens, which acts on some tokens only"
    return None


def _config(model: PeftModel) -> Any:  # noqa: ANN401 - each method has a class of its own
    return model.peft_config[model.active_adapter]


def _method(model: PeftModel) -> str:
    return str(getattr(_config(model).peft_type, "value", _config(model).peft_type))


def _not_mergeable(strategy: str, reason: str) -> str:
    return f"What the strategy '{strategy}' learned cannot be written as weights of a plain GPT-2: {reason}. It is of use as an adapter only: through peftune.load, or as the start of a run of the same strategy."


MERGE_TOLERANCE = 1e-4
"""Largest change of a hidden state by merging alone, relative to the largest one (or to 1)."""


def backbone_states(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return the last hidden states of a few fixed texts: (rows, time, hidden), on the CPU."""
    backbone = backbone_of(model)
    length = min(64, int(backbone.config.n_positions))
    batch = reference_batch(tokenizer, backbone.ln_f.weight.device, max_length=length)
    with evaluating(model):
        states: torch.Tensor = backbone(**batch, use_cache=False).last_hidden_state
    return states.float().cpu()


def same_states(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Say whether two backbones compute the same up to rounding."""
    largest = max(1.0, float(first.abs().max()))
    return bool((first - second).abs().max() <= MERGE_TOLERANCE * largest)


def effective_backbone(model: nn.Module) -> dict[str, torch.Tensor]:
    """Merge what a model has learned into its backbone, and return the backbone's weights.

    Args:
        model: a prepared model whose base is held in float32; it is taken apart.

    Returns:
        Every weight by GPT-2's own name, on the CPU, float32.

    Raises:
        UsageError: what was learned cannot be written as weights of a plain GPT-2.
    """
    preparation = preparation_of(model)
    name, tokenizer = preparation.strategy.name, preparation.tokenizer
    states = backbone_states(model, tokenizer)
    plain = merged_into_base(model)
    weights = {key: weight.detach() for key, weight in backbone_of(plain).named_parameters()}
    if not same_states(states, backbone_states(plain, tokenizer)):
        message = f"Merging what the strategy '{name}' learned changes what the model computes; another model cannot be initialized from it."
        raise GuardError(message)
    return {key: weight.cpu().clone() for key, weight in weights.items()}


def copied_into(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    """Copy a backbone's weights into a prepared model, if all that differs is trainable.

    Args:
        model: a prepared model.
        weights: from `effective_backbone`.

    Returns:
        Whether they were copied; if not, the model is untouched.
    """
    own = dict(backbone_of(model).named_parameters())
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


def write_backbone(
    model: nn.Module,
    weights: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> None:
    """Write a backbone as a plain GPT-2 checkpoint with its tied language-model head.

    Args:
        model: any model around a backbone of the same configuration.
        weights: its weights, by GPT-2's own names.
        tokenizer: its tokenizer.
        folder: where to.
    """
    with hidden_load_report():
        _with_lm_head(model, weights).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def holds_backbone(folder: Path, weights: Mapping[str, torch.Tensor]) -> bool:
    """Say whether a folder is a checkpoint of exactly these weights, as `write_backbone` writes it."""
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


def _with_lm_head(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> GPT2LMHeadModel:
    """Build a plain language model of a backbone's weights, with the configuration of a base."""
    values = backbone_of(model).config.to_dict()
    kept = {key: value for key, value in values.items() if key not in _OF_A_CLASSIFIER}
    with torch.device("meta"):
        plain: GPT2LMHeadModel = GPT2LMHeadModel(type(backbone_of(model).config)(**kept))
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
