"""What the contenders made of stock peft and Trainer share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import (
    AutoTokenizer,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.contenders.setup import ALPHA, RANK, TARGET, Classify, Session, Setup
from benchmarks.rows import LABELS, Row, read_rows

Tokenize = Callable[[Sequence[Row]], Dataset]
"""Makes a data set of rows, with the place of each in a column `place`."""


def tokenizer_of(base: str) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer, with the end token for padding, on the right."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_classifier(setup: Setup, tokenizer: PreTrainedTokenizerBase, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - what transformers takes
    """Load the base with a new head for the benchmark's labels."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(setup.seed)
    model: nn.Module = GPT2ForSequenceClassification.from_pretrained(
        setup.base,
        local_files_only=True,
        num_labels=len(LABELS),
        pad_token_id=tokenizer.pad_token_id,
        **kwargs,
    )
    return model


def with_lora(model: nn.Module, setup: Setup) -> nn.Module:
    """Put the benchmark's adapter on a base, as peft's documentation does."""
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=setup.adapter_dropout,
        target_modules=[TARGET],
        fan_in_fan_out=True,
    )
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


class StockSession(Session):
    """Train with transformers' own Trainer.

    Args:
        model: with what learns.
        setup: the work.
        tokenize: makes a data set of rows, in the order in which they are to be classified.
        collator: pads a batch; None for Trainer's own choice.
        tokenizer: what the texts were tokenized with.
        arguments: what else `TrainingArguments` gets.
    """

    def __init__(
        self,
        model: nn.Module,
        setup: Setup,
        *,
        tokenize: Tokenize,
        tokenizer: PreTrainedTokenizerBase,
        collator: Any = None,  # noqa: ANN401 - a collator is any callable
        arguments: dict[str, Any],
    ) -> None:
        self.model = model
        self._tokenize = tokenize
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self._trainer = Trainer(
            model=model,
            args=_arguments(setup, self._folder.name, arguments),
            train_dataset=tokenize(read_rows(setup.rows, setup.count)),
            eval_dataset=tokenize(read_rows(setup.validation)) if setup.validation else None,
            data_collator=collator,
            processing_class=tokenizer,
            compute_metrics=_accuracy,
        )

    def train(self, callbacks: Sequence[TrainerCallback]) -> None:
        """Train with Trainer."""
        for callback in callbacks:
            self._trainer.add_callback(callback)
        self._trainer.train()

    def classifier(self) -> Classify:
        """Predict with Trainer, tokenizing the texts first."""
        # Trainer groups by length what it predicts, too, and returns it in that random order.
        self._trainer.args.train_sampling_strategy = "random"
        return self._classify

    def _classify(self, texts: Sequence[str]) -> list[int]:
        dataset = self._tokenize([Row(text, 0) for text in texts])
        outputs = self._trainer.predict(dataset)
        found = np.empty(len(texts), dtype=np.int64)
        found[dataset["place"]] = np.argmax(outputs.predictions, axis=-1)
        return [int(label) for label in found]

    def save(self, folder: Path) -> None:
        """Write what `save_pretrained` does."""
        self.model.save_pretrained(folder)  # type: ignore[operator]


def _arguments(setup: Setup, folder: str, further: dict[str, Any]) -> TrainingArguments:
    evaluates = setup.eval_every is not None
    chosen = {
        "max_steps": setup.steps,
        "learning_rate": setup.learning_rate,
        "max_grad_norm": setup.max_grad_norm,
        "lr_scheduler_type": "linear",
        "seed": setup.seed,
        "use_cpu": setup.device == "cpu",
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": setup.eval_every,
        "save_strategy": "no",
        **further,
        **({"logging_steps": 1} if setup.log_every_step else {}),
    }
    return TrainingArguments(output_dir=folder, **chosen)


def _accuracy(prediction: Any) -> dict[str, float]:  # noqa: ANN401 - transformers' EvalPrediction
    labels = np.argmax(prediction.predictions, axis=-1)
    return {"accuracy": float((labels == prediction.label_ids).mean())}
