"""Load an artifact after checking it, or refuse it in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.adapters.artifact import (
    Opened,
    base_of,
    find_artifact,
    largest_adapter,
    open_artifact,
    remember_base,
)
from peftune.adapters.classifier import Classifier
from peftune.adapters.format import MANIFEST, PEFT_CONFIG
from peftune.adapters.full_model import load_whole_model
from peftune.adapters.manifest import Manifest
from peftune.adapters.reference_logits import check_reference_logits, precision_of
from peftune.adapters.tensors import check_peft_config, insert_tensors
from peftune.adapters.third_party import is_peft_folder, load_third_party_classifier
from peftune.errors import ArtifactError, UsageError
from peftune.files.reading import SharedFolder
from peftune.models.base_files import BaseSource, check_length
from peftune.models.loading import bare_model, choose_device, listed_labels
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import load_tokenizer, remembered_sha256
from peftune.progress import working
from peftune.recipe.task_type import has_head


@working("loading")
def load(
    artifact: str | Path | SharedFolder,
    *,
    base: str | None = None,
    labels: Sequence[str] | None = None,
    use_cpu: bool = False,
) -> Classifier:
    """Load a classifier from an artifact.

    Trusts the manifest and the tensors only: files by hash, tensors by exact name, shape, type
    and finite values, the base and the tokenizer by fingerprint, and two recorded logits by
    replay. Never unpickles, and follows no path, name or pattern inside the artifact.

    A plain PEFT adapter that another tool made has no manifest. It loads if `base` and `labels`
    say what it does not; its tensors are checked in the same way, and a line in the log says that
    nothing binds it to either.

    Args:
        artifact: an adapter folder, the `model/` folder of full fine-tuning, or `user/name` on
            the hub, best pinned as `user/name@commit`.
        base: hub id, local folder or bundled name of the base; needed where the base that the
            artifact names is neither bundled nor in the hub's cache on this machine.
        labels: label names in the order of their ids, for an adapter without a manifest.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base; nothing is loaded.
        BaseModelError: the base cannot be found.
        UsageError: labels are given for an artifact that has its own, or missing for one without.
    """
    names = None if labels is None else listed_labels(labels)
    folder = find_artifact(artifact)
    if MANIFEST not in folder.entries and is_peft_folder(folder):
        return load_third_party_classifier(
            folder, base=base, labels=names, device=choose_device(use_cpu=use_cpu)
        )
    opened = open_artifact(folder)
    manifest = opened.manifest
    if names is not None and list(names) != manifest.labels:
        message = f"'{opened.name}' has the labels {', '.join(manifest.labels)}, in this order. Leave labels out."
        raise UsageError(message)
    if not has_head(manifest.task_name):
        message = f"'{opened.name}' is not a classifier: it has learned {manifest.task_name} and has no head. Start a run from it with model.init_from."
        raise ArtifactError(message)
    model, tokenizer = (
        load_whole_model(opened, base=base, device=choose_device(use_cpu=use_cpu))
        if manifest.kind == "model"
        else _load_adapter(opened, base, use_cpu=use_cpu)
    )
    return checked_classifier(model.eval(), tokenizer, opened)


def load_prepared(
    artifact: str | Path | Opened,
    *,
    base: str | None = None,
    use_cpu: bool = False,
    in_float32: bool = False,
) -> nn.Module:
    """Load an artifact onto its base as a prepared model, whose reference is the untouched base.

    Args:
        artifact: an adapter folder, the `model/` folder of full fine-tuning, or one opened.
        base: hub id, local folder or bundled name of the base, as for `load`.
        use_cpu: stay on the CPU even where there is a GPU.
        in_float32: hold the base in float32 even where the strategy would not.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base.
        BaseModelError: the base cannot be found.
    """
    opened = artifact if isinstance(artifact, Opened) else open_artifact(artifact)
    manifest = opened.manifest
    source = base_of(opened, base)
    contents = opened.contents(limit=largest_adapter(source))
    model = prepare_model(
        source,
        opened.strategy,
        labels=manifest.labels,
        task=manifest.task_name,
        max_length=manifest.max_length,
        use_cpu=use_cpu,
        in_float32=in_float32,
    )
    _check_tokenizer(preparation_of(model).tokenizer, manifest, opened.name, source)
    fill(model, opened, contents)
    return model.eval()


def _load_adapter(
    opened: Opened, base: str | None, *, use_cpu: bool
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Load an adapter to classify with: without the guards of a model that is to be trained."""
    manifest = opened.manifest
    source = base_of(opened, base)
    tokenizer = load_tokenizer(source.folder)
    contents = checked_contents(opened, source, tokenizer)
    model = bare_model(
        source,
        tokenizer,
        opened.strategy,
        labels=manifest.labels,
        task=manifest.task_name,
        device=choose_device(use_cpu=use_cpu),
    )
    fill(model, opened, contents)
    return model, tokenizer


def checked_contents(
    opened: Opened, source: BaseSource, tokenizer: PreTrainedTokenizerBase
) -> dict[str, bytes]:
    """Read an adapter's files, if its base can read its texts as it did.

    Args:
        opened: the adapter.
        source: its base.
        tokenizer: the base's.

    Raises:
        ArtifactError: a file is not the one that was saved, or the tokenizer is another.
        UsageError: its texts are longer than the base has positions.
    """
    check_length(source, opened.manifest.max_length)
    contents = opened.contents(limit=largest_adapter(source))
    _check_tokenizer(tokenizer, opened.manifest, opened.name, source)
    return contents


def checked_classifier(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, opened: Opened
) -> Classifier:
    """Make a classifier of a loaded model, if it behaves as when it was saved.

    Args:
        model: the artifact on its base, in eval mode.
        tokenizer: its tokenizer.
        opened: the artifact.

    Raises:
        ArtifactError: its precision is another than the manifest's, or its logits are others than
            those recorded.
    """
    manifest = opened.manifest
    _refuse_other_precision(model, opened)
    check_reference_logits(
        model,
        tokenizer,
        manifest.reference_logits,
        max_length=manifest.max_length,
        source=opened.name,
    )
    return Classifier(
        model, tokenizer, tuple(manifest.labels), manifest.max_length, manifest, opened.name
    )


def _refuse_other_precision(model: nn.Module, opened: Opened) -> None:
    """Refuse a manifest that asks to be compared in a precision other than its strategy's."""
    found, named = precision_of(model), opened.manifest.precision
    if found != named:
        message = f"'{opened.name}' says that its base is held in {named}, but its strategy '{opened.strategy.name}' holds it in {found}. Fetch it again."
        raise ArtifactError(message)


def fill(model: nn.Module, opened: Opened, contents: Mapping[str, bytes]) -> None:
    """Check an artifact's files against the model, and put its tensors into the trainable weights.

    Args:
        model: the artifact's base, as its strategy prepared it.
        opened: the artifact.
        contents: its files.

    Raises:
        ArtifactError: a file does not fit exactly.
    """
    is_peft = isinstance(model, PeftModel)
    name = f"{opened.name}/{PEFT_CONFIG}"
    if is_peft is not (PEFT_CONFIG in opened.manifest.files):
        message = (
            f"'{name}' is missing."
            if is_peft
            else f"'{name}' does not belong to the strategy '{opened.strategy.name}'."
        )
        raise ArtifactError(message)
    if isinstance(model, PeftModel):
        check_peft_config(
            contents[PEFT_CONFIG],
            model,
            task=opened.manifest.task_name,
            hub_id=opened.manifest.base.name,
            source=name,
        )
    insert_tensors(
        model,
        contents[opened.weights],
        source=f"{opened.name}/{opened.weights}",
        dtype=getattr(torch, opened.manifest.dtype),
    )


def _check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, manifest: Manifest, artifact: str, source: BaseSource
) -> None:
    if (
        remembered_sha256(tokenizer, source.folder) != manifest.tokenizer_sha256
        or tokenizer.pad_token_id != manifest.pad_token_id
    ):
        message = f"The tokenizer of '{source.name}' reads text differently from the one that '{artifact}' was trained with. Pass the base that it was trained on."
        raise ArtifactError(message)
    remember_base(manifest, source)
