"""Merge an artifact into its base: one plain transformers checkpoint, checked before it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from transformers import (
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from peftune.adapters.artifact import Opened, open_artifact, refuse_inside
from peftune.adapters.card import merged_card
from peftune.adapters.format import CARD
from peftune.adapters.manifest import Manifest
from peftune.adapters.reference_logits import Rows, arrays, largest_difference, replay, scale_of
from peftune.adapters.verification import (
    TOLERANCES,
    Difference,
    difference_of,
    load_model,
    merged_model,
)
from peftune.errors import OutputFolderError, UsageError, VerificationError, suggestion
from peftune.files.publishing import make_writable, published, write_file
from peftune.files.reading import given_path
from peftune.models.architecture import backbone_of
from peftune.models.loading import open_model
from peftune.models.merging import write_backbone, write_classifier
from peftune.models.tokenizer import load_tokenizer
from peftune.progress import working
from peftune.recipe.task_type import LANGUAGE_MODELING, TaskType

MergedType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Merged:
    """A checkpoint that was merged, and how far it is from its artifact.

    Args:
        folder: where it lies.
        dtype: type of its weights.
        lm: whether it is the tuned backbone with its language-model head, rather than the classifier.
        difference: from what the artifact makes of its recorded texts in float32; with `lm`, of
            their tokens' log-probabilities, in nats.
        allowed: largest difference that passes.
    """

    folder: Path
    dtype: MergedType
    lm: bool
    difference: Difference
    allowed: float

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}


MERGE_TOLERANCES: Mapping[MergedType, float] = {"float32": 1e-4, "bfloat16": 0.1}
"""Largest difference from the adapter in float32, relative to its largest number (or to 1).

A text whose label changes within it was a tie that bfloat16 cannot tell; beyond it the checkpoint
is not the adapter, and is refused.
"""

_REFUSED = {
    "int8": "Merging into a base held in 8-bit integers rounds base and update together anew, and logits change by 0.05 to 0.13. Merge in float32, and quantize what comes of it if you must."
}


@working("merging")
def merge(
    artifact: str | Path,
    output: str | Path,
    *,
    base: str | None = None,
    dtype: str = "float32",
    lm: bool = False,
    use_cpu: bool = False,
) -> Merged:
    """Merge an artifact into its base, and write a plain transformers checkpoint.

    The base is loaded in float32 whatever the artifact was trained on. The checkpoint is opened
    again and compared with the artifact before it takes its place; a model card beside it says
    what it was merged from.

    Args:
        artifact: an adapter folder, or the `model/` folder of full fine-tuning.
        output: the new folder; it must be empty, or not there.
        base: where the base lies, as for `peftune.load`.
        dtype: `float32` or `bfloat16`.
        lm: write the tuned backbone with its language-model head in the place of the classifier;
            always so for an artifact of language modeling.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact is refused.
        BaseModelError: the base cannot be found.
        OutputFolderError: the output folder holds something, or lies in the artifact.
        UsageError: no such type, or what was learned cannot be written as weights of a GPT-2.
        VerificationError: the artifact does not reproduce its record, or the checkpoint does not
            reproduce the artifact; nothing is written.
    """
    kind = _merged_type(dtype)
    opened, target = open_artifact(artifact), given_path(output, "output")
    _refuse_other_content(target, opened)
    manifest = opened.manifest
    task = LANGUAGE_MODELING if lm else manifest.task_type
    model, tokenizer = load_model(opened, base=base, use_cpu=use_cpu, in_float32=True)
    _refuse_unreproduced(model, tokenizer, opened)
    make_writable(target.parent)  # not before the artifact has been checked
    expected = _read(model, tokenizer, manifest, task)
    device = backbone_of(model).wte.weight.device
    plain = merged_model(model)
    with published(target) as staging:
        _write(plain, tokenizer, staging, task=task, dtype=getattr(torch, kind))
        del model, plain
        again = _open(staging, task=task, dtype=getattr(torch, kind), device=device)
        actual = _read(again, load_tokenizer(staging), manifest, task)
        result = Merged(
            target,
            kind,
            not task.has_head,
            _difference(expected, actual, manifest, task),
            MERGE_TOLERANCES[kind] * scale_of(expected),
        )
        if not result.difference.largest <= result.allowed:
            message = f"The checkpoint merged from '{opened.name}' is off by {result.difference.largest:.3g}, and {result.allowed:.3g} is allowed in {kind}. Nothing is written; use the adapter on its base."
            raise VerificationError(message)
        write_file(staging / CARD, _card(opened, result).encode())
    return result


def _card(opened: Opened, merged: Merged) -> str:
    flips = merged.difference.label_flips
    texts = len(opened.manifest.reference_logits.texts)
    return merged_card(
        opened.manifest,
        opened.digest,
        dtype=merged.dtype,
        lm=merged.lm,
        largest=merged.difference.largest,
        allowed=merged.allowed,
        flipped=None if flips is None else round(flips * texts),
    )


def _merged_type(dtype: str) -> MergedType:
    known = get_args(MergedType)
    if dtype not in known:
        reason = _REFUSED.get(dtype, f"A merged checkpoint is not written as '{dtype}'.")
        message = f"{reason} {suggestion(dtype, known)}"
        raise UsageError(message)
    return cast("MergedType", dtype)


def _refuse_other_content(target: Path, opened: Opened) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        message = f"'{target}' exists and is not empty. Choose another folder, or remove it."
        raise OutputFolderError(message)
    refuse_inside(opened, target)


def _refuse_unreproduced(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, opened: Opened
) -> None:
    """Refuse to merge what does not reproduce its own record."""
    manifest = opened.manifest
    recorded = arrays(manifest.reference_logits.logits["float32"])
    found = largest_difference(recorded, _read(model, tokenizer, manifest, manifest.task_type))
    allowed = TOLERANCES["fp32"] * scale_of(recorded)
    if not found <= allowed:
        message = f"'{opened.name}' is off its own record by {found:.3g}, and {allowed:.3g} is allowed in float32. Nothing is merged; see peftune adapter verify."
        raise VerificationError(message)


def _read(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, manifest: Manifest, task: TaskType
) -> Rows:
    try:
        return replay(
            model,
            tokenizer,
            manifest.reference_logits.texts,
            max_length=manifest.max_length,
            task=task.name,
        )
    except FloatingPointError as error:
        message = f"Nothing is merged: {error}."
        raise VerificationError(message) from error


def _difference(expected: Rows, actual: Rows, manifest: Manifest, task: TaskType) -> Difference:
    if task.has_head:
        return difference_of(expected, actual, manifest)
    return Difference(largest_difference(expected, actual), None)


def _write(
    plain: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    task: TaskType,
    dtype: torch.dtype,
) -> None:
    if task.has_head:
        rounded: PreTrainedModel = plain.to(dtype)  # type: ignore[arg-type]
        write_classifier(rounded, tokenizer, folder, dtype=dtype)
        return
    backbone = backbone_of(plain)
    weights = {
        name: weight.detach().to("cpu", dtype) for name, weight in backbone.named_parameters()
    }
    write_backbone(plain, weights, tokenizer, folder)


def _open(
    folder: Path, *, task: TaskType, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Open a checkpoint as anyone will, who has no peftune."""
    kind = GPT2ForSequenceClassification if task.has_head else GPT2LMHeadModel
    model: PreTrainedModel = open_model(kind, folder, device, name=folder.name, dtype=dtype)
    model.eval()
    return model
