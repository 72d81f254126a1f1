"""Watch forgetting while any Trainer trains, and hold it under a budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from peftune.errors import GuardError, UsageError, suggestion
from peftune.forgetting.measurement import (
    ProbeText,
    changes_of,
    measure_base,
    measure_plainly,
    measure_with,
    read_probe_texts,
)
from peftune.models.architecture import unwrapped
from peftune.models.base_files import find_base
from peftune.models.loading import load_backbone
from peftune.models.prepare import compared_with, is_prepared, preparation_of
from peftune.models.tokenizer import load_tokenizer
from peftune.probes import Measurement, Probe

logger = logging.getLogger(__name__)

KEY = "forgetting_"
"""What the keys of the logged values begin with; the probe's name follows."""


OVER_BUDGET = ("skip-checkpoint", "stop-training")


class ForgettingCallback(TrainerCallback):
    """Measure forgetting at every evaluation of a transformers Trainer, or at every epoch's end.

    Measuring changes nothing: the next step's loss is the same, bit for bit. The values go into
    Trainer's log history as `forgetting_<probe>`, into the metrics of the evaluation as
    `eval_forgetting_<probe>`, and into `curve`.

    With a budget, a checkpoint that forgot more is never the best one (it counts as infinitely bad
    under `metric_for_best_model`), and with `over_budget="stop-training"` training ends there.
    Where every checkpoint is over the budget none is the best, and the last weights stay in the
    model. The budget decides, so its text must not be the one whose forgetting is reported.

    Args:
        probes: what to measure; at least one.
        budget: largest allowed forgetting of any probe, in its unit; None only records.
        over_budget: what happens above the budget.
        base: the base's name or folder, for a model that `peftune.prepare` did not make.

    References:
        Kalajdzievski 2024, Scaling Laws for Forgetting, arXiv:2401.05605: stopping early moves
        along the line of learning against forgetting, not off it. This is a guard rail.
    """

    def __init__(
        self,
        *probes: Probe,
        budget: float | None = None,
        over_budget: Literal["skip-checkpoint", "stop-training"] = "skip-checkpoint",
        base: str | None = None,
    ) -> None:
        if not probes:
            message = "ForgettingCallback needs a probe, such as peftune.probes.LanguageModelLoss(file='general.txt')."
            raise UsageError(message)
        labels = [probe.label for probe in probes]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            message = f"ForgettingCallback has two probes named {', '.join(map(repr, repeated))}; give each its own 'name'."
            raise UsageError(message)
        if over_budget not in OVER_BUDGET:
            message = f"over_budget is '{over_budget}'. {suggestion(over_budget, OVER_BUDGET)}"
            raise UsageError(message)
        self.probes = probes
        self.budget = budget
        self.over_budget = over_budget
        self.base = base
        self.curve: list[dict[str, float]] = []
        self._texts: list[ProbeText] = []
        self._before: list[Measurement] = []
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._training = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        **kwargs: Any,  # noqa: ANN401 - Trainer's signature
    ) -> None:
        """Read the texts and measure the base.

        Raises:
            UsageError: the base is not known, or the budget cannot be kept with these arguments.
            GuardError: the model with its adapter disabled is not the base.
        """
        if self.budget is not None and not args.load_best_model_at_end:
            message = "A forgetting budget chooses among checkpoints. Set load_best_model_at_end=True and metric_for_best_model in TrainingArguments."
            raise UsageError(message)
        model: nn.Module = kwargs["model"]
        self._texts = read_probe_texts(self.probes)
        if is_prepared(model):
            self._tokenizer = preparation_of(model).tokenizer
            self._before = measure_base(compared_with(model), self._texts)
        else:
            self._before = self._measure_named_base(model, resumed=state.global_step > 0)
        self.curve = [
            {key: value for key, value in entry.items() if _is_ours(key)}
            for entry in state.log_history
            if any(key.startswith(KEY) for key in entry)
        ]
        self._training = True

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
        """Stop watching: an evaluation after training decides nothing."""
        self._training = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - Trainer's signature
    ) -> None:
        """Measure, record, and see to the budget."""
        if not self._training:
            return
        found = self._record(kwargs["model"], state)
        metrics: dict[str, float] = kwargs.get("metrics") or {}
        metrics.update({f"eval_{key}": value for key, value in found.items()})
        # A loss that is no number is over any budget.
        if self.budget is not None and not all(value <= self.budget for value in found.values()):
            self._refuse_checkpoint(args, metrics, state)
            control.should_training_stop |= self.over_budget == "stop-training"

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - Trainer's signature
        **kwargs: Any,  # noqa: ANN401 - Trainer's signature
    ) -> None:
        """Measure and record where Trainer evaluates nothing."""
        if self._training and args.eval_strategy == "no":
            self._record(kwargs["model"], state)

    def _record(self, model: nn.Module, state: TrainerState) -> dict[str, float]:
        if self.curve and self.curve[-1]["step"] == state.global_step:  # another evaluation set
            return {key: value for key, value in self.curve[-1].items() if key.startswith(KEY)}
        after = self._measured(model)
        changes = changes_of(self._texts, self._before, after)
        found = {f"{KEY}{label}": change for label, change in changes.items()}
        entry = {"epoch": state.epoch or 0.0, "step": state.global_step, **found}
        state.log_history.append(entry)
        self.curve.append(dict(entry))
        return found

    def _measured(self, model: nn.Module) -> list[Measurement]:
        """Measure the model as it is; the base is read as well only where a probe needs it."""
        if self._tokenizer is None:
            message = "the callback has seen no beginning of training"
            raise RuntimeError(message)
        return measure_plainly(model, self._tokenizer, self._texts)

    def _refuse_checkpoint(
        self, args: TrainingArguments, metrics: dict[str, float], state: TrainerState
    ) -> None:
        """Make Trainer pass over the checkpoint of this step when it looks for the best."""
        name = args.metric_for_best_model or "loss"
        key = name if name.startswith("eval_") else f"eval_{name}"
        metrics[key] = -math.inf if args.greater_is_better else math.inf
        logger.info(
            "step %d forgot more than the budget of %g; its checkpoint is not chosen",
            state.global_step,
            self.budget,
        )

    def _measure_named_base(self, model: nn.Module, *, resumed: bool) -> list[Measurement]:
        """Measure the base that the user names, and check that the model began as it."""
        if self.base is None:
            message = f"This {type(model).__name__} was not made by peftune.prepare, so its base is unknown. Name it: ForgettingCallback(probe, base='gpt2')."
            raise UsageError(message)
        for text in self._texts:
            if text.probe.needs_base:
                message = f"The probe '{text.label}' compares with the base token by token, which needs a model made by peftune.prepare."
                raise UsageError(message)
        if getattr(unwrapped(model), "is_quantized", False):
            message = "The base of a quantized model must be measured in the same precision. Make the model with peftune.prepare."
            raise UsageError(message)
        source = find_base(self.base)
        self._tokenizer = load_tokenizer(source.folder)
        backbone = load_backbone(source, torch.device(next(model.parameters()).device))
        before = measure_with(backbone, self._tokenizer, self._texts)
        if not resumed:  # it began as the base when it was started, and has moved since
            _check_start(before, measure_with(model, self._tokenizer, self._texts), self.base)
        return before


def _check_start(before: Sequence[Measurement], now: Sequence[Measurement], base: str) -> None:
    """Refuse a model that is not equal to its base at first: its forgetting would have another zero."""
    for first, start in zip(before, now, strict=True):
        change = float(abs(start.total - first.total).sum() / first.weight.sum())
        if not change <= 1e-5 * max(1.0, abs(first.value)):  # nor is a change that is no number
            message = f"Before the first step the model already differs from the base '{base}' by {change:.3g}. Name the base that it was made from; an adapter must not change it at first."
            raise GuardError(message)


def _is_ours(key: str) -> bool:
    return key in {"epoch", "step"} or key.startswith(KEY)
