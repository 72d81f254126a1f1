"""What a training does, counted: numbers that no busy machine changes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback

from peftune.data.task_data import Task, load_task
from peftune.fastpath import linear_maps, products, scoring
from peftune.models.architecture import backbone_of
from peftune.models.prepare import prepare_model
from peftune.recipe.schema import DataSection
from peftune.recipe.training import TrainingSection
from peftune.strategies import Strategy
from peftune.training.train import TrainingResult, train
from peftune.training.trainer import ClassifierTrainer

MAX_LENGTH = 64

Library = Literal["mkl", "onednn", "torch"]
LIBRARIES: tuple[Library, ...] = ("mkl", "onednn", "torch")
"""Who takes products on a CPU: MKL beside oneDNN on an Intel, oneDNN on others that torch has it for,
and what torch chooses where it has no oneDNN."""


@dataclass
class Counts:
    """What was counted in a training.

    Args:
        tokens: that went through the backbone, padding included: in training and in evaluations.
        evaluations: passes over rows without training.
        operators: of torch, in the last step.
        saved_bytes: what the last step's forward pass kept for its backward pass.
        last_tokens: of the last step, as its batch has them.
        walked: modules that were walked through in each step but the first.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    evaluations: int = 0
    operators: int = 0
    saved_bytes: int = 0
    last_tokens: int = 0
    walked: list[int] = field(default_factory=list)


@contextlib.contextmanager
def products_of(library: Library) -> Iterator[None]:
    """Take products as a processor with a library does, whatever processor this is."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (products, linear_maps, scoring):
            patch.setattr(module, "mkl_is_fast", lambda: library == "mkl", raising=False)
            patch.setattr(module, "has_onednn", lambda: library != "torch", raising=False)
        yield


def posts() -> Task:
    """Read the bundled task."""
    return load_task(DataSection(dataset_name="bundled:posts"))


def trained(
    base: str | Path, strategy: Strategy, folder: Path, **settings: object
) -> tuple[Counts, Task, TrainingResult]:
    """Train on the bundled posts, and count."""
    task = posts()
    model = prepare_model(
        str(base), strategy, labels=task.labels, max_length=MAX_LENGTH, use_cpu=True
    )
    section = TrainingSection.model_validate(
        {
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "use_cpu": True,
            "metric_for_best_model": "loss",
            **settings,
        }
    )
    counts = Counts()
    with pytest.MonkeyPatch.context() as patch:
        _count_tokens(model, counts, patch)
        _count_evaluations(counts, patch)
        _count_saved(model, counts, patch)
        result = train(
            model,
            task,
            section,
            checkpoints=folder,
            run_identity="counted",
            keep_checkpoints=False,
            callbacks=(),
        )
    return counts, task, result


def _count_tokens(model: nn.Module, counts: Counts, patch: pytest.MonkeyPatch) -> None:
    """Count at the token embedding, the one door into the backbone."""
    embedding = backbone_of(model).wte
    stock = nn.Embedding.forward

    def counted(self: nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        if self is embedding:
            counts.tokens["training" if model.training else "evaluation"] += tokens.numel()
        return stock(self, tokens)

    patch.setattr(nn.Embedding, "forward", counted)


def _count_evaluations(counts: Counts, patch: pytest.MonkeyPatch) -> None:
    stock = Trainer.evaluation_loop

    def counted(self: Trainer, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Trainer's signature
        counts.evaluations += 1
        return stock(self, *args, **kwargs)

    patch.setattr(Trainer, "evaluation_loop", counted)


def _count_saved(model: nn.Module, counts: Counts, patch: pytest.MonkeyPatch) -> None:
    """Count each storage once, without those of weights."""
    stock = ClassifierTrainer.compute_loss
    weights = {
        weight.untyped_storage().data_ptr()
        for weights in (model.parameters(), model.buffers())
        for weight in weights
    }

    def counted(self: ClassifierTrainer, model: nn.Module, inputs: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Trainer's signature
        if not model.training:
            return stock(self, model, inputs, **kwargs)
        kept: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage
            return tensor

        counts.last_tokens = inputs["input_ids"].numel()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = stock(self, model, inputs, **kwargs)
        counts.saved_bytes = sum(storage.nbytes() for storage in kept.values())
        return loss

    patch.setattr(ClassifierTrainer, "compute_loss", counted)


def counted_steps(
    base: str | Path, strategy: Strategy, folder: Path, *, steps: int = 6, **settings: object
) -> Counts:
    """Train for some steps, and count operators and walks in each but the first."""
    counts = Counts()
    with pytest.MonkeyPatch.context() as patch:
        build = ClassifierTrainer.__init__

        def build_with_counter(self: ClassifierTrainer, **kwargs: Any) -> None:  # noqa: ANN401 - Trainer's signature
            build(self, **kwargs)
            self.add_callback(_EachStep(counts))

        patch.setattr(ClassifierTrainer, "__init__", build_with_counter)
        found, _, _ = trained(base, strategy, folder, max_steps=steps, **settings)
    found.operators, found.walked = counts.operators, counts.walked
    return found


class _EachStep(TrainerCallback):
    """Count from the beginning of a step to its end; evaluations lie beyond."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._open = contextlib.ExitStack()

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._operators = self._open.enter_context(_Operators())
        self._walks = self._open.enter_context(walks())

    def on_step_end(self, *args: Any, **_: object) -> None:  # noqa: ANN401 - Trainer's signature
        self._open.close()
        self._counts.operators = self._operators.count
        if args[1].global_step > 1:
            self._counts.walked.append(self._walks[0])


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self.count += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def walks() -> Iterator[list[int]]:
    """Count the modules that are walked through, whatever asks for them."""
    found = [0]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("named_modules", "named_children"):
            stock = getattr(nn.Module, name)

            def counted(self: nn.Module, *args: Any, stock: Any = stock, **kwargs: Any) -> Any:  # noqa: ANN401 - torch's signature
                found[0] += 1
                return stock(self, *args, **kwargs)

            patch.setattr(nn.Module, name, counted)
        yield found
