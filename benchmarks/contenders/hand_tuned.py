"""H: peft and stock Trainer, as good as an expert makes them with public options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from benchmarks.contenders.int8 import int8_kwargs, no_int8
from benchmarks.contenders.setup import Contender, Session, Setup
from benchmarks.contenders.stock import StockSession, load_classifier, tokenizer_of, with_lora
from benchmarks.rows import MAX_LENGTH, Row
from benchmarks.shapes import DROPOUTS

_EVALUATION_ROWS = 64


class HandTuned(Contender):
    """Length-grouped batches padded to their longest text, bfloat16 where it is faster, no reports.

    Which precision is faster is tried before the rounds, for each strategy and batch: float32, or
    autocast, where the base of an adapter is stored in bfloat16 and the rest of an expert's script
    stays. SDPA, fused AdamW and no cache are set by name, though some are defaults by now.

    Args:
        strategies: what this variant is measured on.
        trunk_dropout: keep the base's own dropout, as peftune does unless told otherwise.
    """

    def __init__(self, *, strategies: tuple[str, ...], trunk_dropout: bool = True) -> None:
        self.strategies = strategies
        self._trunk_dropout = trunk_dropout

    def absent(self, strategy: str) -> str | None:
        """Say that a strategy has no int8 library to stand on."""
        return no_int8() if strategy == "lora-8bit" else None

    def build(self, setup: Setup) -> Session:
        """Load the base in the precision of the setup, its adapter and head in float32."""
        torch.set_flush_denormal(True)
        tokenizer = tokenizer_of(setup.base)
        model = load_classifier(setup, tokenizer, **self._load_kwargs(setup))
        # Without this Trainer takes the loss for one that is divided by the items of the whole
        # batch (huggingface/transformers#47688).
        model.accepts_loss_kwargs = False  # type: ignore[assignment]
        if setup.strategy != "full":
            model = with_lora(model, setup)
            _learn_in_float32(model)
        return StockSession(
            model,
            setup,
            tokenize=lambda rows: _tokenized(rows, tokenizer),
            tokenizer=tokenizer,
            collator=DataCollatorWithPadding(tokenizer),
            arguments=_arguments(setup),
        )

    def _load_kwargs(self, setup: Setup) -> dict[str, Any]:
        kwargs: dict[str, Any] = {"attn_implementation": "sdpa", "use_cache": False}
        if not self._trunk_dropout:
            kwargs |= dict.fromkeys(DROPOUTS, 0.0)
        frozen_in_bf16 = setup.strategy != "full" and setup.precision == "bf16"
        kwargs["dtype"] = torch.bfloat16 if frozen_in_bf16 else torch.float32
        return kwargs | (int8_kwargs(setup) if setup.strategy == "lora-8bit" else {})


def _learn_in_float32(model: nn.Module) -> None:
    """Hold what learns in float32: peft does so for its adapter, and forgets the head."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _tokenized(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Tokenize rows, the longest first, so that batches of an evaluation pad little."""
    encoded = tokenizer([row.text for row in rows], truncation=True, max_length=MAX_LENGTH)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    dataset = Dataset.from_dict(
        {
            **encoded,
            "labels": [row.label for row in rows],
            "length": lengths,
            "place": range(len(rows)),
        }
    )
    return dataset.sort("length", reverse=True)


def _arguments(setup: Setup) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": setup.batch,
        "per_device_eval_batch_size": _EVALUATION_ROWS,
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "optim": "adamw_torch_fused",
        "bf16": setup.precision == "bf16",
        "logging_nan_inf_filter": False,
        "logging_steps": 1000,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": setup.device == "cuda",
    }
