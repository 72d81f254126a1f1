"""Load models: a base with a new classification head, with its LM head, or without any head."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from torch import nn
from transformers import (
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from peftune.errors import BaseModelError, UsageError, first_line, out_of_memory
from peftune.fastpath.attention import settle_vector_functions
from peftune.fastpath.lora_layers import keep_weights
from peftune.files.strict_json import refuse_hidden
from peftune.models.base_contents import refuse_made_up
from peftune.models.base_files import BaseSource
from peftune.models.fingerprint import base_fingerprint
from peftune.recipe.data import why_unclear
from peftune.recipe.task_type import SINGLE_LABEL, TaskName, TaskType, task_type
from peftune.seeds import stream_seed
from peftune.strategies import Strategy

_MOST_SHOWN = 80


Model = TypeVar("Model", bound=PreTrainedModel)


def choose_device(*, use_cpu: bool) -> torch.device:
    """Return the CUDA device of this process, or the CPU.

    Raises:
        UsageError: several GPUs are visible to one process, which Trainer would mix up.
    """
    if use_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")
    if rank is None and torch.cuda.device_count() > 1:
        message = f"{torch.cuda.device_count()} GPUs are visible. Choose one with CUDA_VISIBLE_DEVICES=0, or start one process for each with torchrun."
        raise UsageError(message)
    return torch.device("cuda", int(rank or 0))


def load_classifier(
    source: BaseSource,
    tokenizer: PreTrainedTokenizerBase,
    *,
    strategy: Strategy,
    labels: Sequence[str],
    device: torch.device,
    seed: int,
    task: TaskName = "single-label",
    in_float32: bool = False,
) -> GPT2ForSequenceClassification:
    """Load a base in float32, or as its strategy asks, with a new classification head.

    The head depends on the seed and the shape alone, so all strategies start from the same one.

    Args:
        source: where the base lies.
        tokenizer: its tokenizer; its pad id goes into the model's configuration.
        strategy: says how the base is loaded.
        labels: label names in the order of their ids; at least two, one for a regression.
        device: where the model lives.
        seed: the run's seed.
        task: the task type; one without a head has the head of single-label, which is not trained.
        in_float32: hold the base in float32 whatever the strategy asks for.

    Returns:
        The classifier, in eval mode, ready for `strategy.prepare`.

    Raises:
        BaseModelError: the weights cannot be read.
    """
    shape = task_type(task) if task_type(task).has_head else SINGLE_LABEL
    _refuse_labels(labels, shape)
    model = load_weights(
        GPT2ForSequenceClassification,
        source,
        device,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type=shape.problem_type,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=False,
        **({} if in_float32 else strategy.load_kwargs()),
    )
    _renew_head(model, seed)
    # The forward's **kwargs make Trainer believe that the model divides its loss by the number of
    # items in the whole batch; it does not (huggingface/transformers#47688).
    model.accepts_loss_kwargs = False  # type: ignore[assignment]
    keep_weights(model)
    model.eval()
    return model


def bare_model(
    source: BaseSource,
    tokenizer: PreTrainedTokenizerBase,
    strategy: Strategy,
    *,
    labels: Sequence[str],
    task: TaskName,
    device: torch.device,
) -> nn.Module:
    """Load a base and let the strategy choose what is trainable, for weights that are put in at once.

    Without guards, reference and random start: what is loaded is used, and not trained or compared
    with its base.

    Args:
        source: where the base lies.
        tokenizer: its tokenizer.
        strategy: which weights are trainable.
        labels: label names in the order of their ids.
        task: the task type; it has a head.
        device: where the model lives.

    Returns:
        The model in eval mode. The global random state is as it was.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = load_classifier(
            source, tokenizer, strategy=strategy, labels=labels, device=device, seed=0, task=task
        )
        prepared = strategy.prepare(model)
        keep_weights(prepared)
        return prepared.eval()


def listed_labels(labels: object) -> tuple[str, ...]:
    """Return the label names that a caller passed, in the order of their ids.

    Raises:
        UsageError: it is not a list of names: a text, a number, a mapping, or names that are not a text.
    """
    wanted = "labels must be a list of label names in the order of their ids, such as ['negative', 'positive']"
    if isinstance(labels, (str, bytes, Mapping, AbstractSet)) or not isinstance(labels, Iterable):
        counted = isinstance(labels, int) and labels > 1
        instead = (
            f" For {labels} classes without names pass [str(i) for i in range({labels})]."
            if counted
            else ""
        )
        message = f"{wanted} (got {_shown(labels)}).{instead}"
        raise UsageError(message)
    names = list(labels)
    strange = [name for name in names if not isinstance(name, str)]
    if strange:
        message = f"{wanted} (got {_shown(names)}). {_shown(strange[0])} is of type {type(strange[0]).__name__}, and names are text; write '{strange[0]}'."
        raise UsageError(message)
    if not all(name.strip() for name in names):
        message = f"{wanted} (got {_shown(names)}). A name is empty."
        raise UsageError(message)
    return tuple(map(str, names))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _refuse_labels(labels: Sequence[str], task: TaskType) -> None:
    """Refuse what transformers would read as another task type, and names that cannot be saved."""
    if task.numeric and len(labels) != 1:
        message = f"A regression has one label, which names its number (got {list(labels)})."
        raise UsageError(message)
    if len(labels) < task.fewest_labels:
        message = f"A classifier needs at least two labels (got {list(labels)})."
        raise UsageError(message)
    if len(set(labels)) < len(labels):
        message = f"Two labels have the same name (got {list(labels)}). Give each its own."
        raise UsageError(message)
    try:
        refuse_hidden("".join(labels), layout="")
    except ValueError as error:
        message = f"The labels {list(labels)} cannot be saved: {error}. Name that label otherwise."
        raise UsageError(message) from error
    if unclear := why_unclear(labels):
        message = (
            f"The labels {list(labels)} cannot be saved: {unclear}. Name that label otherwise."
        )
        raise UsageError(message)


def load_backbone(source: BaseSource, device: torch.device) -> GPT2Model:
    """Load a base in float32 without any head, in eval mode; see `load_base`."""
    return load_base(GPT2Model, source, device)


def load_language_model(source: BaseSource, device: torch.device) -> GPT2LMHeadModel:
    """Load a base in float32 with its own tied LM head, in eval mode; see `load_base`."""
    return load_base(GPT2LMHeadModel, source, device)


def load_base(
    model_class: type[Model],
    source: BaseSource,
    device: torch.device,
    **options: Any,  # noqa: ANN401 - whatever from_pretrained takes
) -> Model:
    """Load a base whose weights nothing else has read: all of them are finite, and its own LM head is tied.

    Args:
        model_class: one of transformers' classes.
        source: where the base lies.
        device: where the model lives.
        options: further arguments of `from_pretrained`.

    Returns:
        The model in eval mode.

    Raises:
        BaseModelError: the weights cannot be read, or are not those of the configuration.
    """
    base_fingerprint(source.folder)  # reads every weight, and refuses values that are not weights
    model = load_weights(model_class, source, device, **options)
    model.eval()
    return model


def load_weights(
    model_class: type[Model],
    source: BaseSource,
    device: torch.device,
    **options: Any,  # noqa: ANN401 - whatever from_pretrained takes
) -> Model:
    """Load a base as one of transformers' classes, in float32; a classification head alone may be new.

    Args:
        model_class: the class.
        source: where the base lies.
        device: where the model lives.
        options: further arguments of `from_pretrained`.

    Raises:
        BaseModelError: the weights cannot be read, or transformers made one up or left one out.
    """
    try:
        # Mismatched sizes are for the head's sake alone: any other made-up tensor is refused.
        return open_model(
            model_class,
            source.folder,
            device,
            name=source.name,
            tie_word_embeddings=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except BaseModelError:
        raise
    except Exception as error:
        message = f"The base '{source.name}' cannot be loaded: {first_line(error)}."
        raise (out_of_memory(error) or BaseModelError(message)) from error


def open_model(
    model_class: type[Model],
    folder: Path | None,
    device: torch.device,
    *,
    name: str,
    dtype: torch.dtype = torch.float32,
    **options: Any,  # noqa: ANN401 - whatever from_pretrained takes
) -> Model:
    """Call `from_pretrained`: safetensors of this machine only, silently, with no tensor made up.

    Args:
        model_class: one of transformers' classes.
        folder: a checkpoint; None where `options` hold a configuration and tensors.
        device: where the model lives.
        name: what messages call the model.
        dtype: type of its weights.
        options: further arguments of `from_pretrained`.

    Raises:
        BaseModelError: transformers made up a tensor other than a classification head, or left one out.
    """
    settle_vector_functions()  # what is loaded computes exactly from its first pass on
    with hidden_load_report():
        loaded: Any = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            device_map={"": device},
            output_loading_info=True,
            **options,
        )
    model: Model
    model, report = loaded
    refuse_made_up(report, name=name)
    return model


def _renew_head(model: GPT2ForSequenceClassification, seed: int) -> None:
    generator = torch.Generator().manual_seed(stream_seed(seed, "head"))
    weight = torch.empty(model.score.weight.shape).normal_(
        0.0, model.config.initializer_range, generator=generator
    )
    with torch.no_grad():
        model.score.weight.copy_(weight)


@contextlib.contextmanager
def hidden_load_report() -> Iterator[None]:
    """Hide the report that the head is newly initialized: it always is, and on purpose."""
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
