"""T: what a tutorial's script for this task does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from datasets import Dataset

from benchmarks.contenders.setup import Contender, Session, Setup
from benchmarks.contenders.stock import StockSession, load_classifier, tokenizer_of, with_lora
from benchmarks.rows import Row


class Tutorial(Contender):
    """Pad every text to the base's positions; one row at a time, accumulated; float32; stock Trainer.

    It says nothing of `accepts_loss_kwargs`, as tutorials do not, so Trainer multiplies its loss by
    the accumulated rows (huggingface/transformers#47688); that changes no second of it.
    """

    strategies = ("full", "lora")
    batch_is_accumulated = True

    def build(self, setup: Setup) -> Session:
        """Load in float32, as the file is or not."""
        tokenizer = tokenizer_of(setup.base)
        model = load_classifier(setup, tokenizer, dtype=torch.float32)
        longest = int(model.config.n_positions)  # type: ignore[union-attr, arg-type]
        if setup.strategy == "lora":
            model = with_lora(model, setup)

        def tokenize(rows: Sequence[Row]) -> Dataset:
            encoded = tokenizer(
                [row.text for row in rows],
                padding="max_length",
                truncation=True,
                max_length=longest,
            )
            labels = [row.label for row in rows]
            return Dataset.from_dict({**encoded, "labels": labels, "place": range(len(rows))})

        return StockSession(
            model,
            setup,
            tokenize=tokenize,
            tokenizer=tokenizer,
            arguments={
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": setup.batch,
            },
        )
