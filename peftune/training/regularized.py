"""A Trainer whose loss has further terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from peftune.regularizers import Penalty, Regularizer
from peftune.training.trained_model import TrainedClassifier


class RegularizedTrainer(Trainer):
    """Train as transformers' Trainer does, with regularisers added to the loss.

    The terms are added to the loss of every batch before Trainer divides it by
    `gradient_accumulation_steps`, so accumulating does not multiply them. They use up no random
    state: the task's batches and dropout are those of the plain run. The evaluation loss is the
    task's alone. Each term is logged as `penalty_<type>`.

    Args:
        model: from `peftune.prepare`.
        regularizers: terms of the loss; one with a weight of zero is left out.
        regularizer_seed: decides what text they draw.
        arguments: what `transformers.Trainer` takes, by keyword.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        regularizers: Sequence[Regularizer] = (),
        regularizer_seed: int = 0,
        **arguments: Any,  # noqa: ANN401 - what Trainer takes
    ) -> None:
        super().__init__(model=model, **arguments)
        self._trained = model
        self.regularizers = [term for term in regularizers if term.weight > 0]
        self._regularizer_seed = regularizer_seed
        self._penalties: list[tuple[Regularizer, Penalty]] = []
        self._logged: dict[str, tuple[torch.Tensor, int]] = {}
        self._place = (-1, 0)

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Trainer's signature
        """Get the regularisers ready, then train."""
        if self.regularizers:
            trained = TrainedClassifier(
                self._trained, seed=self._regularizer_seed, task_tokens=self._tokens_of_a_batch()
            )
            self._penalties = [(term, term.begin(trained)) for term in self.regularizers]
        return super().train(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - Trainer's signature
        """Add the terms to the task's loss while training; evaluation is as it was."""
        found: Any = super().compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )
        if not (self._penalties and model.training):
            return found
        loss = (found[0] if return_outputs else found) + self._terms(inputs)
        return (loss, found[1]) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Log the terms beside the training loss."""
        if "loss" in logs:
            for name, (total, count) in self._logged.items():
                logs[f"penalty_{name}"] = float(total) / count
            self._logged = {}
        super().log(logs, *args, **kwargs)

    def _terms(self, batch: dict[str, Any]) -> torch.Tensor:
        draw = self._draw()
        terms = [torch.zeros((), device=self.args.device)]
        for term, penalty in self._penalties:
            value = penalty(batch, draw)
            if value is None:
                continue
            terms.append(term.weight * value)
            total, count = self._logged.get(term.type, (torch.zeros_like(terms[0]), 0))
            self._logged[term.type] = (total + value.detach(), count + 1)
        return torch.stack(terms).sum()

    def _draw(self) -> int:
        """Number the batch: the same after a resume, another on each process."""
        step, seen = self._place
        now = int(self.state.global_step)
        self._place = (now, seen + 1 if step == now else 0)
        within = now * self.args.gradient_accumulation_steps + self._place[1]
        return within * int(self.args.world_size) + int(self.args.process_index)

    def _tokens_of_a_batch(self) -> float:
        """Estimate the task's tokens in a batch from its first thousand rows."""
        rows = self.train_dataset
        if rows is None or not hasattr(rows, "__len__"):
            return float(self.args.per_device_train_batch_size)
        count = min(1000, len(rows))
        total = sum(len(rows[index]["input_ids"]) for index in range(count))
        return total / count * self.args.per_device_train_batch_size
