"""A Trainer whose loss has further terms."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from peftune.errors import UsageError
from peftune.models.parts import autocast_off
from peftune.regularizers import Penalty, Regularizer
from peftune.training.trained_model import TrainedClassifier
from peftune.training.walks import walked_once


class RegularizedTrainer(Trainer):
    """Train as transformers' Trainer does, with regularisers added to the loss.

    The terms of the batches of a step are averaged, so accumulating does not multiply them. They
    use up no random state: the task's batches and dropout are those of the plain run. The
    evaluation loss is the task's alone. Each term is logged before its weight as
    `penalty_<type>`, a second one of the same type as `penalty_<type>_2`.

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
        self._logged: dict[int, tuple[torch.Tensor, int]] = {}
        self._place = (-1, 0)

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Trainer's signature
        """Get the regularisers ready, then train."""
        self._place, self._logged, self._penalties = (-1, 0), {}, []
        if self.regularizers:
            trained = TrainedClassifier(
                self._trained, seed=self._regularizer_seed, task_tokens=self._tokens_of_a_batch
            )
            self._penalties = [(term, term.begin(trained)) for term in self.regularizers]
        # Its arguments alone say what the training computes in, not a context around it.
        with autocast_off(self.args.device.type), contextlib.ExitStack() as stack:
            if self.args.n_gpu <= 1:  # DataParallel copies a model's attributes into each replica
                stack.enter_context(walked_once(self._trained))
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
        terms = self._terms(inputs) / self._parts_of_a_step(num_items_in_batch)
        loss = (found[0] if return_outputs else found) + terms
        return (loss, found[1]) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Log the terms beside the training loss."""
        if "loss" in logs:
            for index, (total, count) in sorted(self._logged.items()):
                logs[f"penalty_{self._name(index)}"] = float(total) / count
            self._logged = {}
        super().log(logs, *args, **kwargs)

    def _unlogged_penalties(self) -> dict[str, tuple[float, int]]:
        """Return the sums of the terms since the last logged loss, and their counts, for a checkpoint."""
        return {str(index): (float(total), n) for index, (total, n) in self._logged.items()}

    def _restore_unlogged_penalties(self, kept: Mapping[str, tuple[float, int]]) -> None:
        """Go on from the sums of a checkpoint."""
        self._logged = {
            int(index): (torch.tensor(total, device=self.args.device), n)
            for index, (total, n) in kept.items()
        }

    def _terms(self, batch: dict[str, Any]) -> torch.Tensor:
        draw = self._draw()
        terms = [torch.zeros((), device=self.args.device)]
        for index, (term, penalty) in enumerate(self._penalties):
            value = penalty(batch, draw)
            if value is None:
                continue
            terms.append(term.weight * value)
            total, count = self._logged.get(index, (torch.zeros_like(terms[0]), 0))
            self._logged[index] = (total + value.detach(), count + 1)
        return torch.stack(terms).sum()

    def _name(self, index: int) -> str:
        kinds = [term.type for term in self.regularizers]
        before = kinds[:index].count(kinds[index])
        return f"{kinds[index]}_{before + 1}" if before else kinds[index]

    def _parts_of_a_step(self, items: torch.Tensor | int | None) -> int:
        """Return by how much the terms must be divided where Trainer does not divide the loss.

        It does not where the task's loss is scaled for accumulation already, as its own
        `training_step` decides.
        """
        scaled = getattr(self, "loss_is_scaled_for_ga", None)  # older transformers lack it
        if scaled is None:
            by_model = self.model_accepts_loss_kwargs and items is not None
            scaled = by_model or self.compute_loss_func is not None
        return self.current_gradient_accumulation_steps if scaled else 1

    def _draw(self) -> int:
        """Number the batch: the same after a resume, another on each process."""
        step, seen = self._place
        now = int(self.state.global_step)
        self._place = (now, seen + 1 if step == now else 0)
        within = now * self.args.gradient_accumulation_steps + self._place[1]
        return within * int(self.args.world_size) + int(self.args.process_index)

    def _tokens_of_a_batch(self) -> float:
        """Estimate the task's tokens in a batch from a thousand rows, evenly over the data set.

        Raises:
            UsageError: the rows cannot be counted, or hold no token ids.
        """
        rows: Any = self.train_dataset
        try:
            places = range(0, len(rows), max(1, len(rows) // 1000))
            sizes = [len(rows[index]["input_ids"]) for index in places]
            return sum(sizes) / len(sizes) * self.args.per_device_train_batch_size
        except (TypeError, KeyError, ZeroDivisionError) as error:
            message = "A share of the task's tokens needs a train_dataset with a length whose rows hold 'input_ids'."
            raise UsageError(message) from error
