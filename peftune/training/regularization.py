"""The model in training as regularizers see it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import Trainer

from peftune.configuration import TextSource
from peftune.data.documents import load_documents
from peftune.errors import DataError, UsageError
from peftune.models.architecture import autocast_off, backbone_of, head_of
from peftune.models.lm_head import (
    divergence_from_base,
    fisher_information,
    language_model_loss,
    written_by_base,
)
from peftune.models.prepare import preparation_of
from peftune.models.tokenizer import encode_texts
from peftune.models.weight_statistics import squared_drift
from peftune.regularizers import Penalty, Regularizer
from peftune.seeds import stream_seed


class TrainedClassifier:
    """Answer what regularizers ask of a prepared model.

    Args:
        model: from `peftune.prepare`.
        seed: the run's seed; everything drawn here comes from a stream of its own.
        task_tokens: counts the tokens that a batch of the task has on average.
    """

    def __init__(self, model: nn.Module, *, seed: int, task_tokens: Callable[[], float]) -> None:
        self._model = model
        self._preparation = preparation_of(model)
        self._seed = stream_seed(seed, "regularizers")
        self._task_tokens = task_tokens
        self._end = int(self._preparation.tokenizer.eos_token_id)
        self._device = backbone_of(model).wte.weight.device

    def divergence(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean of KL(base || model) over all tokens, in nats, with a gradient."""
        return divergence_from_base(self._model, sequences, prefix=self._end)

    def language_loss(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean negative log-likelihood of all tokens, in nats, with a gradient."""
        return language_model_loss(self._model, sequences, prefix=self._end)

    def drift(self, importance: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the squared change of the backbone's weights since the start, with a gradient."""
        return squared_drift(self._model, self._preparation.before, importance)

    def head_norm(self) -> torch.Tensor:
        """Return the squared norm of the classification head, with a gradient; 0 where it takes no part."""
        learning = [weight for weight in head_of(self._model).parameters() if weight.requires_grad]
        norms = [weight.float().square().sum() for weight in learning]
        return torch.stack(norms).sum() if norms else torch.zeros((), device=self._device)

    def fisher(self, sequences: Sequence[Sequence[int]]) -> Mapping[str, torch.Tensor]:
        """Return the diagonal Fisher information of the base's weights, by name, a token."""
        return fisher_information(
            self._preparation.base,
            sequences,
            prefix=self._end,
            seed=self._seed,
            device=self._device,
        )

    def sequences_of(self, source: TextSource, *, length: int) -> list[list[int]]:
        """Read a text as consecutive sequences of exactly `length` tokens, end tokens between.

        Raises:
            DataError: the text is too short for one sequence, or the model for the length.
        """
        self._check_length(length)
        documents = encode_texts(
            self._preparation.tokenizer, list(load_documents(source)), max_length=None
        )
        stream = [token for ids in documents for token in (*ids, self._end)]
        found = [
            stream[start : start + length] for start in range(0, len(stream) - length + 1, length)
        ]
        if not found:
            message = f"'{source.label}' has {len(stream)} tokens, too few for one sequence of {length}. Give a longer text, or a smaller length."
            raise DataError(message)
        return found

    def generated(self, count: int, *, length: int) -> list[list[int]]:
        """Let the base write sequences of `length` tokens, sampled at temperature 1."""
        self._check_length(length)
        return written_by_base(
            self._preparation.base,
            count,
            length=length,
            prefix=self._end,
            seed=self._seed,
            device=self._device,
        )

    def task_tokens(self) -> float:
        """Return how many tokens a batch of the task has on average."""
        return self._task_tokens()

    def chosen(
        self, sequences: Sequence[Sequence[int]], count: int, *, draw: int
    ) -> list[Sequence[int]]:
        """Draw `count` of the sequences at random, by the seed of the run and the draw."""
        generator = torch.Generator().manual_seed(self._seed + draw)
        picked = torch.randint(len(sequences), (count,), generator=generator)
        if count <= len(sequences):
            picked = torch.randperm(len(sequences), generator=generator)[:count]
        return [sequences[index] for index in picked.tolist()]

    def _check_length(self, length: int) -> None:
        positions = int(backbone_of(self._model).config.n_positions)
        if length > positions:
            message = f"A regularizer's length must be at most the {positions} positions of '{self._preparation.base.name}' (got {length})."
            raise DataError(message)


@contextmanager
def walked_once(model: nn.Module) -> Iterator[None]:
    """Let a model answer from one walk what a training loop asks of it at every step.

    `train()`, `parameters()` and `num_parameters()` give what they gave before; a module or a
    parameter that is added to anything meanwhile makes them walk again, and so does a module that
    is not in training mode. A copy of the model has the methods of its class.

    Args:
        model: what is trained; its methods are its own again afterwards.
    """
    additions = _Additions()
    walk = _Walk(model, additions)
    answers = {"train": walk.train, "parameters": walk.parameters}
    if hasattr(model, "num_parameters"):
        answers["num_parameters"] = walk.num_parameters
    handles = (
        register_module_module_registration_hook(additions.note),
        register_module_parameter_registration_hook(additions.note),
    )
    own = vars(model)
    before = {name: own[name] for name in answers if name in own}
    own.update(answers)
    additions.watched = True
    try:
        yield
    finally:
        additions.watched = False
        for name in answers:
            del own[name]
        own.update(before)
        for handle in handles:
            handle.remove()


class _Additions:
    """Counts what is added to any module while it watches; a copy never watches."""

    def __init__(self) -> None:
        self.watched = False
        self.count = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Additions, ())

    def note(self, *_: object) -> None:
        self.count += 1


class _Walk:
    """What a walk through a model found."""

    def __init__(self, model: nn.Module, additions: _Additions) -> None:
        self._model = model
        self._additions = additions
        self._train, self._parameters_of = model.train, model.parameters
        self._number_of: Any = getattr(model, "num_parameters", None)
        self._seen = -1
        self._modules: list[nn.Module] = []
        self._parameters: list[nn.Parameter] = []
        self._numbers: dict[bool, int] = {}

    def train(self, mode: bool = True) -> nn.Module:
        """Put every module into training mode, unless all are."""
        if mode is True and self._holds() and all(part.training for part in self._modules):
            return self._model
        return self._train(mode)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Give the parameters, in the model's order."""
        if recurse and self._holds():
            return iter(self._parameters)
        return self._parameters_of(recurse)

    def num_parameters(
        self, only_trainable: bool = False, exclude_embeddings: bool = False
    ) -> int:
        """Count the parameters; those that learn may change, and are counted each time."""
        if only_trainable or not self._holds():
            return int(self._number_of(only_trainable, exclude_embeddings))
        if exclude_embeddings not in self._numbers:
            self._numbers[exclude_embeddings] = int(self._number_of(False, exclude_embeddings))
        return self._numbers[exclude_embeddings]

    def _holds(self) -> bool:
        """Say whether what was found still holds; walk again where something was added."""
        if not self._additions.watched:
            return False
        if self._seen != self._additions.count:
            self._seen = self._additions.count
            self._modules = list(self._model.modules())
            self._parameters = list(self._parameters_of())
            self._numbers = {}
        return True


class RegularizedTrainer(Trainer):
    """Train as transformers' Trainer does, with regularizers added to the loss.

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
        """Get the regularizers ready, then train."""
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
        kinds = [term.name for term in self.regularizers]
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
