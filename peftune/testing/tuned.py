"""A strategy's model after real training steps, and what the laws look at in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from peftune.bundled import MODELS, bundled_folder
from peftune.data.tokens import padding_collator
from peftune.models.architecture import backbone_of, evaluating, trainable_parameters
from peftune.models.base_files import find_base
from peftune.models.inference import predict_logits
from peftune.models.loading import choose_device, load_classifier
from peftune.models.prepare import reference_batch
from peftune.models.tokenizer import REFERENCE_TEXTS, encode_texts, load_tokenizer
from peftune.strategies import Strategy

TOLERANCE = 1e-5
"""Largest difference between two ways to compute the same float, relative to the largest (or 1)."""


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors."""
    return float((first - second).abs().max())


def require_close(
    actual: torch.Tensor, expected: torch.Tensor, what: str, *, tolerance: float = TOLERANCE
) -> None:
    """Fail unless two tensors agree up to the tolerance, relative to the largest value (or 1)."""
    __tracebackhide__ = True
    difference = largest_difference(actual, expected)
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    require(
        difference <= allowed, f"{what} are off by {difference:.3g}; allowed is {allowed:.3g}."
    )


def require(holds: bool, fault: str) -> None:
    """Fail with one sentence: asserts of an installed package tell an author nothing."""
    __tracebackhide__ = True
    if not holds:
        pytest.fail(fault)


def write_tiny_base(folder: Path) -> Path:
    """Write a GPT-2 of two random layers, width 64, with the bundled tokenizer.

    Its weights are large enough that padding, masks and positions show in every logit. No bias is
    zero and no layer norm is one. Two hidden units are outliers, as GPT-2's own are, on which int8
    rounds by the whole batch. The files are laid out as those of GPT-2 on the hub.

    Args:
        folder: where to; made where it is missing.

    Returns:
        The folder: a local base for `peftune.prepare` and for recipes.
    """
    bundled = bundled_folder(MODELS[0], among=MODELS)
    tokenizer = load_tokenizer(bundled)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=64,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
        unlike_new(model)
    with torch.no_grad():
        for block in model.transformer.h:
            block.get_parameter("ln_1.weight")[:2] = 8.0
    save_as_published(model, folder)
    for path in bundled.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


def unlike_new(model: GPT2LMHeadModel) -> None:
    """Give a new model biases that are not zero and layer norms that are not one.

    Zeros and ones hide whatever forgets, rounds or exchanges them. They are drawn from the global
    random state.
    """
    with torch.no_grad():
        for name, weight in model.transformer.named_parameters():
            if name.endswith(".bias"):
                weight.normal_(0.0, 0.15)
            elif ".ln_" in f".{name}":
                weight.normal_(1.0, 0.25).abs_()


def save_as_published(model: GPT2LMHeadModel, folder: Path) -> None:
    """Save a model as GPT-2 lies on the hub, which `save_pretrained` no longer does.

    Tensors of the backbone without the prefix `transformer.` and without the tied LM head, the causal
    masks among them; a configuration with `n_ctx`, `summary_*` and no pad token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    shape = (1, 1, config.n_positions, config.n_positions)
    mask = torch.ones(config.n_positions, config.n_positions).tril().view(shape)
    tensors = {name: weight.clone() for name, weight in model.transformer.state_dict().items()}
    tensors |= {f"h.{block}.attn.bias": mask.clone() for block in range(config.n_layer)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    published = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_ctx": config.n_positions,
        "summary_proj_to_labels": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    kept = (
        "activation_function attn_pdrop bos_token_id embd_pdrop eos_token_id initializer_range "
        "layer_norm_epsilon n_embd n_head n_layer n_positions resid_pdrop vocab_size"
    )
    published |= {name: getattr(config, name) for name in kept.split()}
    (folder / "config.json").write_text(json.dumps(published, indent=2), encoding="utf-8")


LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """A strategy's model after three real training steps, and what it was before them.

    Args:
        model: prepared and trained.
        tokenizer: its tokenizer.
        before: every entry of the prepared model's state, copied before training.
        base: the base as the strategy loads it, with the same new head, never prepared.
    """

    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    before: Mapping[str, Any] = field(repr=False)
    base: nn.Module = field(repr=False)

    @property
    def batch(self) -> dict[str, torch.Tensor]:
        """The reference texts as one right-padded batch: (rows, time), int64."""
        return reference_batch(
            self.tokenizer,
            torch.device("cpu"),
            max_length=MAX_LENGTH,
            rows=len(REFERENCE_TEXTS),
        )


class GradientsBeforeTheStep(transformers.TrainerCallback):
    """Copy the gradients that the optimizer is about to use."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
        """Copy them."""
        for name, weight in trainable_parameters(kwargs["model"]).items():
            if weight.grad is not None:
                self.gradients[name] = weight.grad.detach().clone()


def step_gradients(
    tuned: Tuned, folder: Path, *, rows: int, accumulation: int
) -> dict[str, torch.Tensor]:
    """Return the gradient of one Trainer step; a rate of zero leaves the model as it is."""
    copied = GradientsBeforeTheStep()
    dropouts = [module for module in tuned.model.modules() if isinstance(module, nn.Dropout)]
    shares = [module.p for module in dropouts]
    trainer = stock_trainer(
        tuned.model,
        tuned.tokenizer,
        folder,
        learning_rate=0.0,
        max_steps=1,
        max_grad_norm=0.0,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
    )
    trainer.add_callback(copied)
    try:
        for module in dropouts:
            module.p = 0.0
        trainer.train()
    finally:
        tuned.model.eval()
        tuned.model.zero_grad(set_to_none=True)
        for module, share in zip(dropouts, shares, strict=True):
            module.p = share
    return copied.gradients


def stock_trainer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    kind: Callable[..., transformers.Trainer] = transformers.Trainer,
    **arguments: Any,  # noqa: ANN401 - TrainingArguments' own
) -> transformers.Trainer:
    """Build a stock Trainer, or one of another kind, on the reference texts."""
    encoded = encode_texts(tokenizer, list(REFERENCE_TEXTS[:8]), max_length=MAX_LENGTH)
    rows = {"input_ids": encoded, "labels": [i % len(LABELS) for i in range(len(encoded))]}
    return kind(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            **{"per_device_train_batch_size": 8, **arguments},
            use_cpu=True,
            seed=0,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        data_collator=padding_collator(tokenizer),
    )


def load_base(strategy: Strategy, folder: Path) -> GPT2ForSequenceClassification:
    """Load the base as the strategy asks, with the head of every model here, unprepared."""
    return load_classifier(
        find_base(str(folder)),
        load_tokenizer(folder),
        strategy=strategy,
        labels=LABELS,
        device=choose_device(use_cpu=True),
        seed=0,
    )


def expected_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the file must hold: the trainable weights, or what peft itself would write."""
    if isinstance(model, PeftModel):
        tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(
            model, save_embedding_layers=False
        )
        count = len(trainable_parameters(model))
        require(
            len(tensors) == count,
            f"{count} weights are trainable, of which peft would save {len(tensors)}.",
        )
        return tensors
    return {name: weight.detach() for name, weight in trainable_parameters(model).items()}


def copy_state(model: nn.Module) -> dict[str, Any]:
    """Copy every weight and buffer, quantization statistics included."""
    return {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in [*model.state_dict().items(), *model.named_buffers()]
    }


def equal_values(first: Any, second: Any) -> bool:  # noqa: ANN401 - tensors, or what quantization stores beside them
    """Compare two values of a state, tensors bit by bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return bool(first == second)


def hidden_states_of(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return what the backbone computes without dropout: (batch, time, hidden)."""
    with evaluating(model):
        states: torch.Tensor = backbone_of(model)(**batch).last_hidden_state
    return states


def predict_texts(tuned: Tuned, texts: Sequence[str], *, batch_size: int) -> torch.Tensor:
    """Return the logits of texts in batches of this size: (texts, labels)."""
    return torch.from_numpy(
        predict_logits(
            tuned.model, tuned.tokenizer, texts, max_length=MAX_LENGTH, batch_size=batch_size
        )
    )


def pad_to(
    tokenizer: PreTrainedTokenizerBase, encoded: list[list[int]], length: int
) -> dict[str, torch.Tensor]:
    """Pad token ids on the right to one length: (rows, length), int64."""
    padded = tokenizer.pad(
        {"input_ids": encoded}, padding="max_length", max_length=length, return_tensors="pt"
    )
    return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}


def run_python(script: str, *arguments: str) -> str:
    """Run a script in a process of its own that sees the same packages and no network."""
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    result = subprocess.run(  # noqa: S603 - this Python, with a script of ours
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    require(result.returncode == 0, f"A fresh process failed:\n{result.stderr}")
    return result.stdout
