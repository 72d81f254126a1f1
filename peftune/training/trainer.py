"""The Trainer of peftune: transformers' own, with whole checkpoints and honest clocks."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import (
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from peftune.data.tokens import TokenRows, padding_collator
from peftune.errors import TrainingError
from peftune.models.architecture import computes_in_float32, in_float32
from peftune.models.lm_head import summed_nats
from peftune.progress import stage
from peftune.recipe.task_type import TaskName
from peftune.regularizers import Regularizer
from peftune.tasks import methods_of
from peftune.tasks.base import LossFunction
from peftune.training.callbacks import (
    CountedSteps,
    QuietProgress,
    RoomForCheckpoints,
    StopWhenDiverged,
    report_forgetting,
)
from peftune.training.checkpoints import (
    Checkpoint,
    checkpoint_bytes,
    partial_removed,
    remove_unneeded,
    write_digest,
)
from peftune.training.regularization import RegularizedTrainer

Row = Mapping[str, Any]


class HashedOrder:
    """Put batches together as another collator does, and hash what passes.

    Args:
        collate: what makes a batch of tokenized rows.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate
        self._digest = hashlib.sha256()

    def __call__(self, rows: list[Row]) -> Any:  # noqa: ANN401 - a batch of the inner collator
        """Hash each row's tokens and label, and where the batch ends."""
        for row in rows:
            labels = row.get("labels", row.get("label"))
            written = labels.tolist() if isinstance(labels, np.ndarray) else labels
            self._digest.update(np.asarray(row["input_ids"], dtype=np.int64).tobytes())
            self._digest.update(f"={written};".encode())
        self._digest.update(b"|")
        return self._collate(rows)

    @property
    def sha256(self) -> str:
        """Name the batches so far by one hash."""
        return self._digest.hexdigest()


class SeededOrder(Sampler[int]):
    """Group rows of like length as Trainer's own sampler does, each epoch by a seed of its own.

    Trainer's draws from the global random state, which dropout and the initialization of an adapter
    use as well: two strategies of one seed would read the same rows in different batches.

    Args:
        grouped: Trainer's sampler.
        seed: the run's seed.
    """

    def __init__(self, grouped: LengthGroupedSampler, seed: int) -> None:
        self._grouped = grouped
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; accelerate says which one it is, after a resume too."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._grouped)

    def __iter__(self) -> Iterator[int]:
        """Go through the rows' numbers."""
        self._grouped.generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(self._grouped)


TRAIN_SAMPLE = "train_sample"
"""What stands before the name of a score of training rows that was taken at an evaluation."""


_ROWS = "peftune_rows_read"
"""Where a Trainer's state holds the count: what lies there is in every checkpoint."""

_UNLOGGED = "peftune_unlogged"
"""Where it holds the losses of the steps since the last point of the training curve."""


def rows_read(state: TrainerState) -> int:
    """Return how many rows the steps of a training have read so far, repeats counted."""
    return int(_kept_with(state).get(_ROWS, {}).get("attributes", {}).get("rows", 0))


def _kept_with(state: TrainerState) -> dict[str, Any]:
    """Return what a state holds for callbacks, in the form of their states: it is saved as it is."""
    # A list only until the state is made.
    kept: dict[str, Any] = state.stateful_callbacks  # type: ignore[assignment]
    return kept


@dataclass(frozen=True, slots=True)
class Objective:
    """What is learned, and how it is scored.

    Args:
        task_name: the task type.
        thresholds: multi-label: decision thresholds of the evaluations, (labels,).
        loss: in the place of the model's own.
        evaluation_loss: in the place of `loss` where the model is evaluated; None: the same.
    """

    task_name: TaskName = "single-label"
    thresholds: Sequence[float] | None = None
    loss: LossFunction | None = None
    evaluation_loss: LossFunction | None = None


class _Resumption(TrainerCallback):
    """Complete a state that Trainer has loaded, before the first step."""

    def __init__(self, complete: Callable[[], None]) -> None:
        self._complete = complete

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - Trainer's signature
        """Complete the state."""
        self._complete()


class ClassifierTrainer(RegularizedTrainer):
    """Train a prepared classifier; write whole checkpoints, and time evaluation apart from training.

    Args:
        model: from `prepare_model`.
        args: from `training_arguments`.
        tokenizer: pads the batches.
        train: tokenized training rows.
        validation: tokenized rows that choose the best checkpoint.
        train_sample: tokenized training rows that are scored beside them at every evaluation, so
            that both curves are on one scale; None scores none. It has no say in the training.
        run_identity: hash that ties checkpoints to this run.
        keep_checkpoints: write each checkpoint; without, the model ends with the last weights.
        patience: evaluations without a better one before training stops; None never stops early.
        objective: what is learned; one label a row without.
        regularizers: terms added to the loss.
        regularizer_seed: decides what text they draw.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        tokenizer: PreTrainedTokenizerBase,
        train: Dataset,
        validation: Dataset,
        train_sample: Dataset | None = None,
        run_identity: str,
        keep_checkpoints: bool = True,
        patience: int | None = None,
        objective: Objective | None = None,
        regularizers: Sequence[Regularizer] = (),
        regularizer_seed: int = 0,
    ) -> None:
        goal = objective or Objective()
        super().__init__(
            model,
            regularizers=regularizers,
            regularizer_seed=regularizer_seed,
            args=args,
            train_dataset=TokenRows(train),
            eval_dataset=TokenRows(validation),
            processing_class=tokenizer,
            data_collator=padding_collator(tokenizer),
            compute_metrics=methods_of(goal.task_name).metrics_for_trainer(goal.thresholds),
            compute_loss_func=goal.loss,
        )
        self._evaluation_loss = goal.evaluation_loss
        self.run_identity = run_identity
        self._order_seed = args.seed if args.data_seed is None else args.data_seed
        self.order = HashedOrder(self.data_collator)
        self.keep_checkpoints = keep_checkpoints
        self.seconds_aside = 0.0
        self._train_sample = None if train_sample is None else TokenRows(train_sample)
        self._sample_scores: dict[str, float] = {}
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        if not args.disable_tqdm:
            self.add_callback(QuietProgress)
        self.add_callback(StopWhenDiverged)
        if keep_checkpoints:
            self.add_callback(RoomForCheckpoints)
        self.add_callback(CountedSteps)
        if patience is not None:
            self.add_callback(EarlyStoppingCallback(patience))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        """Choose as Trainer does, and let the seed alone decide on the order."""
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            return SeededOrder(sampler, self._order_seed)
        return sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Read the training rows as Trainer does, and hash their order on the way."""
        collate = self.data_collator
        self.data_collator = self.order
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Learn from a batch as Trainer does, and count its rows, those of the other processes too."""
        rows = rows_read(self.state) + len(inputs["input_ids"]) * self.args.world_size
        _kept_with(self.state)[_ROWS] = {"args": {}, "attributes": {"rows": rows}}
        return super().training_step(model, inputs, num_items_in_batch)

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Trainer's signature
        """Train as Trainer does, and show how far it is."""
        with stage("training", unit="steps", bar=False):
            return super().train(*args, **kwargs)

    def train_from(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; from the end of a training without a step.

        Trainer itself takes one more step from there, where steps or a callback ended it.
        """
        if checkpoint.ended:
            self.args.max_steps, self.args.num_train_epochs = -1, 0
        resumption = _Resumption(lambda: self._complete_state(checkpoint))
        self.add_callback(resumption)
        try:
            self.train(resume_from_checkpoint=str(checkpoint.path))
        finally:
            self.remove_callback(resumption)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # noqa: ANN401 - Trainer's signature
        """Evaluate as Trainer does, report forgetting too, and count the seconds apart."""
        started = time.perf_counter()
        try:
            with stage("evaluating", unit="batches", bar=False):
                self._sample_scores = self._scores_of_train_sample()
                metrics: dict[str, float] = super().evaluate(*args, **kwargs)
            _refuse_undefined(self.args.metric_for_best_model, metrics)
            report_forgetting(self, metrics)
            return metrics
        finally:
            self.seconds_aside += time.perf_counter() - started

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Trainer's signature
        """Evaluate as Trainer does; on an int8 base in float32, as what is reported of it is computed."""
        is_int8 = getattr(self._trained, "is_loaded_in_8bit", False)
        with in_float32(self._trained) if is_int8 else contextlib.nullcontext():
            return super().evaluation_loop(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Log the scores of the train sample beside those of the validation rows."""
        if "eval_loss" in logs:
            logs.update(self._sample_scores)
        super().log(logs, *args, **kwargs)

    def _scores_of_train_sample(self) -> dict[str, float]:
        """Score the sample as the validation rows are scored: without dropout, with these weights."""
        if self._train_sample is None:
            return {}
        # A DataLoader draws a number when it begins, and dropout would go on from another state.
        with torch.random.fork_rng(devices=[]):
            found = self.evaluation_loop(
                self.get_test_dataloader(self._train_sample),
                description="Train sample",
                prediction_loss_only=True if self.compute_metrics is None else None,
                metric_key_prefix=TRAIN_SAMPLE,
            )
        scores = {name: float(value) for name, value in (found.metrics or {}).items()}
        self.control = self.callback_handler.on_predict(
            self.args, self.state, self.control, scores
        )
        return scores

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - Trainer's signature
        """Compute the loss as Trainer does; an evaluation has its own, of labels as they are.

        Trainer's own smoothing is in its evaluation loss too, which then compares with no other.
        """
        learned_by = self.compute_loss_func
        if self._evaluation_loss is not None and not model.training:
            self.compute_loss_func = self._evaluation_loss
        try:
            return super().compute_loss(
                model,
                inputs,
                return_outputs=return_outputs,
                num_items_in_batch=num_items_in_batch,
            )
        finally:
            self.compute_loss_func = learned_by

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Write a checkpoint as Trainer does, then its digest, which a torn one lacks."""
        if not self.keep_checkpoints:
            return
        started = time.perf_counter()
        checkpoint = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        _kept_with(self.state)[_UNLOGGED] = {"args": {}, "attributes": self._unlogged()}
        with partial_removed(checkpoint, needed=checkpoint_bytes(self._trained, self.args.optim)):
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                write_digest(checkpoint, self.run_identity)
        if self.args.should_save:
            remove_unneeded(checkpoint.parent)
        self.seconds_aside += time.perf_counter() - started

    def _unlogged(self) -> dict[str, Any]:
        """Return what the next logged loss is the mean of so far."""
        return {
            "loss": float(self._tr_loss),
            "logged_at": self._globalstep_last_logged,
            "penalties": self._unlogged_penalties(),
        }

    def _complete_state(self, resumed: Checkpoint) -> None:
        """Take from a checkpoint what Trainer saves or counts, and does not load.

        That is the patience spent, the losses since the last point of the curve, and where the
        best checkpoint lies now; and, of a training that had ended, the random state.
        """
        kept = _kept_with(self.state)
        self.state.best_model_checkpoint = None if resumed.best is None else str(resumed.best)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                spent = kept[type(callback).__name__]["attributes"]
                callback.early_stopping_patience_counter = spent["early_stopping_patience_counter"]
        if _UNLOGGED in kept:  # not in a checkpoint of an earlier version
            since = kept[_UNLOGGED]["attributes"]
            self._tr_loss = torch.tensor(since["loss"], device=self.args.device)
            self._globalstep_last_logged = since["logged_at"]
            self._restore_unlogged_penalties(since["penalties"])
        if resumed.ended:
            self._load_rng_state(str(resumed.path))


def _refuse_undefined(metric: str | None, metrics: Mapping[str, float]) -> None:
    """Refuse to choose a checkpoint by a metric that these rows do not have.

    Raises:
        TrainingError: it is not among the metrics.
    """
    if metric is not None and metric not in metrics:
        message = f"training.metric_for_best_model: {metric.removeprefix('eval_')} is not defined on the validation rows: a label has no rows there, or all predictions are equal. Choose another metric, or hold out more rows."
        raise TrainingError(message)


_STATES = "output_hidden_states"
"""The argument of a model's forward that asks for its states."""


class LanguageTrainer(ClassifierTrainer):
    """Train a prepared backbone on full windows of tokens; the classification head takes no part.

    GPT-2 ties its output head to the token embedding, so a classifier's backbone is a language model
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
        """Give regularizers the tokens of the batch, and nothing else."""
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
