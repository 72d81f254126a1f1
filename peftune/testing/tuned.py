"""A strategy's model after real training steps, and what the laws look at in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from torch import nn
from transformers import (
    GPT2ForSequenceClassification,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from peftune.data.tokens import padding_collator
from peftune.models.base import choose_device, load_classifier
from peftune.models.inference import predict_logits
from peftune.models.parts import (
    evaluating,
    trainable_parameters,
    trunk_of,
)
from peftune.models.prepare import reference_batch
from peftune.models.reference_texts import REFERENCE_TEXTS
from peftune.models.source import find_base
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.strategies import Strategy
from peftune.testing.checks import require

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
    **arguments: Any,  # noqa: ANN401 - TrainingArguments' own
) -> transformers.Trainer:
    """Build a stock Trainer on the reference texts."""
    encoded = encode_texts(tokenizer, list(REFERENCE_TEXTS[:8]), max_length=MAX_LENGTH)
    rows = {"input_ids": encoded, "labels": [i % len(LABELS) for i in range(len(encoded))]}
    return transformers.Trainer(
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
    """Copy every weight and buffer, quantisation statistics included."""
    return {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in [*model.state_dict().items(), *model.named_buffers()]
    }


def equal_values(first: Any, second: Any) -> bool:  # noqa: ANN401 - tensors, or what quantisation stores beside them
    """Compare two values of a state, tensors bit by bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return bool(first == second)


def hidden_states_of(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return what the trunk computes without dropout: (batch, time, hidden)."""
    with evaluating(model):
        states: torch.Tensor = trunk_of(model)(**batch).last_hidden_state
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
