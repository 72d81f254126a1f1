"""Save a trained model: an adapter folder, or a plain checkpoint where every weight was trained."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.torch
import torch
from peft import PeftModel
from torch import nn

from peftune._version import __version__
from peftune.adapters.card import artifact_card
from peftune.adapters.format import (
    CARD,
    MANIFEST,
    MODEL_CONFIG,
    MODEL_LIMITS,
    PEFT_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    Kind,
)
from peftune.adapters.full_model import KNOWN_KEYS, wanted_instead
from peftune.adapters.manifest import Manifest, Rescaled, sha256_of, write_manifest
from peftune.adapters.reference_logits import precision_of, record_reference_logits, reproduces
from peftune.adapters.tensors import adapter_tensors, check_against_peft, peft_config, written
from peftune.errors import (
    GuardError,
    OutputFolderError,
    TrainingError,
    UsageError,
    suggestion,
    visible,
)
from peftune.files.publishing import published, write_file
from peftune.files.reading import given_path
from peftune.files.strict_json import refuse_hidden
from peftune.models.architecture import (
    backbone_of,
    is_whole_model,
    trainable_parameters,
    unwrapped,
    without_container,
)
from peftune.models.fingerprint import BaseIdentity
from peftune.models.inference import predict_logits
from peftune.models.interpolation import snapshot
from peftune.models.merging import write_backbone, write_classifier
from peftune.models.prepare import Preparation, preparation_of, refuse_changed_base
from peftune.models.tokenizer import tokenizer_sha256
from peftune.models.tokenizer_files import CONFIG_KEYS
from peftune.progress import working
from peftune.recipe.data import TextStep
from peftune.recipe.schema import StoredType, refuse_unlabeled
from peftune.tasks import methods_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rounding:
    """What came of rounding trained weights to bfloat16.

    Args:
        texts: how many texts were predicted with and without.
        flips: of how many the predicted labels changed; the weights stay as they were if any.
        largest_difference: largest change of a logit.
    """

    texts: int
    flips: int
    largest_difference: float

    @property
    def dtype(self) -> StoredType:
        """What the weights can be stored as."""
        return "float32" if self.flips else "bfloat16"


def round_weights(
    model: nn.Module, texts: Sequence[str], *, thresholds: Sequence[float] | None = None
) -> Rounding:
    """Round the trainable weights to bfloat16, in place, unless a predicted label changes.

    They remain float32 in memory, with values that bfloat16 holds exactly.

    Args:
        model: a prepared model of a task with labels.
        texts: whose predicted labels must not change; validation texts.
        thresholds: multi-label: probability from which each label is assigned; 0.5 without.

    Raises:
        UsageError: the task has no labels, or there are no texts to see them on.
    """
    preparation = preparation_of(model)
    _refuse_unlabeled(model, "bfloat16")
    if not len(texts):
        message = "There are no texts on which to see whether bfloat16 changes a label. Pass validation_texts=…, or save in float32."
        raise UsageError(message)
    tokenizer, length = preparation.tokenizer, preparation.max_length
    before = predict_logits(model, tokenizer, texts, max_length=length)
    kept, weights = snapshot(model), trainable_parameters(model)
    with torch.no_grad():
        for weight in weights.values():
            weight.copy_(weight.to(torch.bfloat16))
    after = predict_logits(model, tokenizer, texts, max_length=length)
    flips = methods_of(preparation.task).count_flips(before, after, thresholds) or 0
    if flips:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept[name])
    rounding = Rounding(len(texts), flips, float(np.abs(before - after).max()))
    _tell(rounding)
    return rounding


@contextlib.contextmanager
def weights_as_stored(
    model: nn.Module,
    dtype: StoredType,
    texts: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
) -> Iterator[StoredType]:
    """Let a model have, inside the context, the weights that a file of a type can hold.

    Args:
        model: a prepared model; afterwards it is as it was.
        dtype: the type that is asked for.
        texts: on which no predicted label may change; not read where the weights are rounded
            already.
        thresholds: multi-label: probability from which each label is assigned.

    Yields:
        The type to store: float32 where bfloat16 would change a label.

    Raises:
        UsageError: the task has no labels, or there are no texts to see them on.
    """
    _refuse_unlabeled(model, dtype)
    if dtype == "float32" or _is_rounded(model):
        yield dtype
        return
    kept = snapshot(model)
    try:
        yield round_weights(model, texts, thresholds=thresholds).dtype
    finally:
        with torch.no_grad():
            for name, weight in trainable_parameters(model).items():
                weight.copy_(kept[name])


def _refuse_unlabeled(model: nn.Module, dtype: StoredType) -> None:
    try:
        refuse_unlabeled(dtype, preparation_of(model).task)
    except ValueError as error:
        message = f"{error}."
        raise UsageError(message) from error


def _is_rounded(model: nn.Module) -> bool:
    return all(
        torch.equal(weight, weight.to(torch.bfloat16).to(weight.dtype))
        for weight in trainable_parameters(model).values()
    )


def _tell(rounding: Rounding) -> None:
    if rounding.flips:
        logger.warning(
            "bfloat16 would change the labels of %d of %d validation texts, so the weights stay in float32",
            rounding.flips,
            rounding.texts,
        )
    else:
        logger.info(
            "no label of %d validation texts changes in bfloat16, so the weights are rounded to it",
            rounding.texts,
        )


_STATE = ("truncation", "padding")
"""What a tokenizer was last asked for; it is asked anew each time."""


def keep_plain(folder: Path) -> None:
    """Drop what a checkpoint's files say beyond what a load reads: it computes nothing.

    GPT-2's own files carry keys of years ago and settings for generating text, other bases chat
    templates; transformers writes all of it on.

    Args:
        folder: a checkpoint of a classifier, just written by `save_pretrained`.
    """
    for path in folder.iterdir():
        if path.name not in MODEL_LIMITS:
            path.unlink()
    for name, known in ((MODEL_CONFIG, KNOWN_KEYS), (TOKENIZER_CONFIG, CONFIG_KEYS)):
        values = json.loads((folder / name).read_bytes())
        kept = {
            key: value
            for key, value in values.items()
            if key in known and not (name == MODEL_CONFIG and wanted_instead(key, value))
        }
        text = json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")
    parts = json.loads((folder / TOKENIZER).read_bytes())
    parts |= dict.fromkeys(_STATE)
    text = json.dumps(parts, indent=2, ensure_ascii=False)
    (folder / TOKENIZER).write_text(text, encoding="utf-8")


@working("saving")
def save(
    model: nn.Module,
    folder: str | Path,
    *,
    task: Mapping[str, Any] | None = None,
    forgetting: Sequence[Mapping[str, Any]] | None = None,
    rescaled: Rescaled | None = None,
    label_thresholds: Sequence[float] | None = None,
    dtype: StoredType = "float32",
    validation_texts: Sequence[str] = (),
    clean: Sequence[TextStep] = (),
) -> Path:
    """Save the trainable weights, with all that it takes to use them.

    An adapter folder holds `adapter_model.safetensors`, `adapter_config.json` (for PEFT
    strategies), `peftune.json` and `README.md`, and plain PEFT can read it. Where every weight was trained, the folder is a plain transformers checkpoint with the same manifest and card.

    Args:
        model: from `peftune.prepare`, trained by anyone, in any precision. What is recorded of it is
            what it computes in float32.
        folder: where to; an older artifact there is replaced, anything else is refused.
        task: scores to record, with the keys of the report's `learning`.
        forgetting: probe results to record.
        rescaled: how it was made out of another artifact, to record.
        label_thresholds: multi-label: probability from which each label is assigned; 0.5 without.
        dtype: `bfloat16` halves the file. It is taken only if rounding the trained weights changes
            no predicted label of the validation texts; otherwise float32 is, and the log says so.
        validation_texts: read for `bfloat16`, where the weights are not rounded to it already.
        clean: how the texts were cleaned that it was trained on, in this order; whoever classifies
            with the artifact cleans texts so too.

    Returns:
        The folder.

    Raises:
        UsageError: the model was not made by `peftune.prepare`, bfloat16 is asked for without
            labels or texts to see its effect on, or there is no such step of cleaning.
        TrainingError: a weight is not finite.
        GuardError: no load would give what the model gives: a frozen weight has changed, a weight
            is of another type than it was prepared in, or its logits depend on the batch.
        OutputFolderError: the folder holds something else.
    """
    target = given_path(folder, "folder")
    model = without_container(model)
    preparation = preparation_of(model)
    _refuse_other_steps(clean)
    _refuse_other_content(target)
    _refuse_not_finite(adapter_tensors(model))
    _refuse_other_weights(model, preparation)
    as_stored = weights_as_stored(model, dtype, validation_texts, thresholds=label_thresholds)
    with as_stored as stored, published(target) as staging:
        kind: Kind = "model" if is_whole_model(model) else "adapter"
        write = _write_model if kind == "model" else _write_adapter
        write(model, preparation, staging, dtype=getattr(torch, stored))
        card = artifact_card(
            preparation,
            kind=kind,
            is_peft=isinstance(model, PeftModel),
            precision=precision_of(model),
            task=task,
            forgetting=forgetting,
            rescaled=rescaled,
            clean=clean,
        )
        write_file(staging / CARD, card.encode())
        manifest = _manifest(
            model,
            preparation,
            staging,
            kind=kind,
            dtype=stored,
            task=task,
            forgetting=forgetting,
            rescaled=rescaled,
            label_thresholds=label_thresholds,
            clean=clean,
        )
        _refuse_not_reproduced(model, preparation, manifest)
        write_manifest(manifest, staging)
    return target


def artifact_bytes(folder: Path) -> int:
    """Count the bytes of a saved artifact, all files together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write_adapter(
    model: nn.Module, preparation: Preparation, folder: Path, *, dtype: torch.dtype
) -> None:
    weights = adapter_tensors(model)
    if isinstance(model, PeftModel):
        check_against_peft(model, weights)
        values = peft_config(model, task=preparation.task, hub_id=preparation.base.hub_id)
        write_file(folder / PEFT_CONFIG, written(values))
    tensors = {
        name: weight.detach().to("cpu", dtype).contiguous() for name, weight in weights.items()
    }
    write_file(folder / WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"}))


def _write_model(
    model: nn.Module, preparation: Preparation, folder: Path, *, dtype: torch.dtype
) -> None:
    if preparation.task_type.has_head:
        write_classifier(unwrapped(model), preparation.tokenizer, folder, dtype=dtype)
        keep_plain(folder)
        return
    weights = {name: weight.detach() for name, weight in backbone_of(model).named_parameters()}
    write_backbone(model, weights, preparation.tokenizer, folder)


def _manifest(
    model: nn.Module,
    preparation: Preparation,
    folder: Path,
    *,
    kind: Kind,
    dtype: StoredType,
    task: Mapping[str, Any] | None,
    forgetting: Sequence[Mapping[str, Any]] | None,
    rescaled: Rescaled | None,
    label_thresholds: Sequence[float] | None,
    clean: Sequence[TextStep],
) -> Manifest:
    return Manifest(
        peftune_version=__version__,
        kind=kind,
        strategy=preparation.strategy.fields(),
        base=BaseIdentity.of(preparation.base, preparation.base_fingerprint),
        task_name=preparation.task,
        labels=list(preparation.labels),
        label_thresholds=None if label_thresholds is None else list(label_thresholds),
        max_length=preparation.max_length,
        tokenizer_sha256=tokenizer_sha256(preparation.tokenizer),
        pad_token_id=preparation.tokenizer.pad_token_id,
        precision=precision_of(model),
        dtype=dtype,
        files={path.name: sha256_of(path.read_bytes()) for path in sorted(folder.iterdir())},
        behaviour=record_reference_logits(model),
        task=_seen(task),
        forgetting=None if forgetting is None else [_seen(result) for result in forgetting],
        rescaled=rescaled,
        started_from=preparation.initialized_from,
        clean=list(clean) or None,
    )


def _seen(values: Any) -> Any:  # noqa: ANN401 - any JSON
    """Spell out the names that no load would take as they are; others find their columns again."""
    if isinstance(values, str):
        try:
            refuse_hidden(values)
        except ValueError:
            return visible(values)
        return values
    if isinstance(values, Mapping):
        return {_seen(key): _seen(value) for key, value in values.items()}
    return [_seen(value) for value in values] if isinstance(values, list | tuple) else values


def _refuse_other_steps(clean: Sequence[str]) -> None:
    for step in clean:
        if step not in get_args(TextStep) or list(clean).count(step) > 1:
            message = f"clean= takes steps that change texts, each once (got '{step}'). {suggestion(step, get_args(TextStep))}"
            raise UsageError(message)


def _refuse_other_content(target: Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / MANIFEST).is_file():
        message = f"'{target}' exists and is not an artifact of peftune. Choose another folder, or remove it."
        raise OutputFolderError(message)


def _refuse_not_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            message = f"The weight '{name}' holds values that are not finite: training has diverged, and nothing is saved. Lower the learning rate."
            raise TrainingError(message)


def _refuse_other_weights(model: nn.Module, preparation: Preparation) -> None:
    """Refuse a model that no load makes again: from its base, and its trainable weights in the type they had."""
    for name, weight in trainable_parameters(model).items():
        prepared = preparation.before[name].dtype if name in preparation.before else weight.dtype
        if weight.dtype != prepared:
            was, now = (str(dtype).removeprefix("torch.") for dtype in (prepared, weight.dtype))
            message = f"The weight '{name}' is {now} and was prepared in {was}, so no load would give what this model gives; nothing is saved. Train with bf16=True or fp16=True, which leave the weights as they are, and without bf16_full_eval, fp16_full_eval, half() or to(dtype)."
            raise GuardError(message)
    refuse_changed_base(model, "no load would give what this model gives, and nothing is saved")


def _refuse_not_reproduced(model: nn.Module, preparation: Preparation, manifest: Manifest) -> None:
    """Ask the model first what every load asks."""
    if not reproduces(model, preparation.tokenizer, manifest):
        message = f"What the strategy '{preparation.strategy.name}' made gives two texts other logits in one padded batch than alone, so every load would refuse it; nothing is saved. Choose a strategy whose logits do not depend on padding."
        raise GuardError(message)
