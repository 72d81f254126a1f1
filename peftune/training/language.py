"""Train the trunk as the language model that it is, through its tied head."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from peftune.models.language import summed_nats
from peftune.models.parts import computes_in_float32
from peftune.training.trainer import ClassifierTrainer

_STATES = "output_hidden_states"
"""The argument of a model's forward that asks for its states."""


class LanguageTrainer(ClassifierTrainer):
    """Train a prepared trunk on full windows of tokens; the classification head takes no part.

    GPT-2 ties its output head to the token embedding, so a classifier's trunk is a language model
    too. The loss of a step is the sum over its tokens by their number, however the step is split
    into batches.

    Args:
        arguments: what `ClassifierTrainer` takes, by keyword.
    """

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 - what ClassifierTrainer takes
        super().__init__(**arguments)
        self.compute_loss_func = self._nats_per_token

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - Trainer's signature
        """Ask the model for its states, which the tied head reads."""
        return super().compute_loss(
            model,
            {**inputs, _STATES: True},
            return_outputs=return_outputs,
            num_items_in_batch=num_items_in_batch,
        )

    def _terms(self, batch: dict[str, Any]) -> torch.Tensor:
        """Give regularisers the tokens of the batch, and nothing else."""
        return super()._terms({name: value for name, value in batch.items() if name != _STATES})

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,  # noqa: ARG002 - Trainer's signature
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Evaluate the loss alone: there is nothing else to gather."""
        return super().prediction_step(model, inputs, True, ignore_keys)

    def _nats_per_token(
        self,
        outputs: Any,  # noqa: ANN401 - what a model returns
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        states = outputs["hidden_states"][-1].flatten(0, 1)  # (windows, time, hidden)
        # The model's forward has its own autocast; the head is applied after it.
        off = computes_in_float32()
        with contextlib.nullcontext() if off else self.accelerator.autocast():
            nats = summed_nats(self._trained, states, labels.flatten())
        return nats / (labels.numel() if num_items_in_batch is None else num_items_in_batch)
