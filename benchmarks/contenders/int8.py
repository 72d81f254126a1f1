"""B: peft on a bitsandbytes int8 base, as their documentation has it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding

from benchmarks.contenders.setup import Contender, Session, Setup
from benchmarks.contenders.stock import StockSession, load_classifier, tokenizer_of, with_lora
from benchmarks.rows import MAX_LENGTH, Row


def no_int8() -> str | None:
    """Say why nothing can be held in int8; None where it can."""
    return None if find_spec("bitsandbytes") else "bitsandbytes is not installed"


def int8_kwargs(setup: Setup) -> dict[str, Any]:
    """Ask transformers for an int8 base on the setup's device."""
    from transformers import BitsAndBytesConfig

    # It warns at every call that it casts to float16; that is how int8 works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return {
        "quantization_config": BitsAndBytesConfig(load_in_8bit=True),
        "device_map": {"": setup.device if setup.device == "cpu" else 0},
    }


class StockInt8(Contender):
    """Load in 8 bits, `prepare_model_for_kbit_training` with its defaults, then the adapter.

    The defaults hold embeddings and norms in float32 and recompute activations in the backward
    pass. Batches are in random order and padded to their longest text.
    """

    strategies = ("lora-8bit",)

    def absent(self, strategy: str) -> str | None:  # noqa: ARG002 - it has one
        """Say that bitsandbytes is missing."""
        return no_int8()

    def build(self, setup: Setup) -> Session:
        """Load, prepare, and put the adapter on it."""
        from peft import prepare_model_for_kbit_training

        tokenizer = tokenizer_of(setup.base)
        model = load_classifier(setup, tokenizer, dtype=torch.float32, **int8_kwargs(setup))
        model.accepts_loss_kwargs = False  # type: ignore[assignment]
        model = with_lora(prepare_model_for_kbit_training(model), setup)

        def tokenize(rows: Sequence[Row]) -> Dataset:
            encoded = tokenizer([row.text for row in rows], truncation=True, max_length=MAX_LENGTH)
            labels = [row.label for row in rows]
            return Dataset.from_dict({**encoded, "labels": labels, "place": range(len(rows))})

        return StockSession(
            model,
            setup,
            tokenize=tokenize,
            tokenizer=tokenizer,
            collator=DataCollatorWithPadding(tokenizer),
            arguments={"per_device_train_batch_size": setup.batch, "report_to": "none"},
        )
