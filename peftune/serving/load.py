"""Load several adapters onto one base, each after the checks that it would pass alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GPT2ForSequenceClassification

from peftune.artifacts.behaviour import INT8, precision_of
from peftune.artifacts.load import checked_classifier, checked_contents, fill
from peftune.artifacts.opened import Opened, open_artifact
from peftune.artifacts.own_base import base_of
from peftune.errors import ArtifactError, UsageError, printable
from peftune.models.base import PROBLEM_TYPES, choose_device, load_classifier
from peftune.models.tokenizer import load_tokenizer
from peftune.recipe.task import has_head
from peftune.serving.classifier_set import ClassifierSet
from peftune.serving.shared_base import SharedClassifier, share
from peftune.serving.update import Update, refuse_whole_trunk, taken_off

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


def load_many(
    artifacts: Mapping[str, str | Path], *, base: str | None = None, use_cpu: bool = False
) -> ClassifierSet:
    """Load several adapters onto one base, which is in memory once.

    Each adapter passes the checks of `peftune.load`, and the recorded logits are replayed with all
    of them in place. Labels, kind of task, rank, targets and longest text may differ. Adapters of
    `lora-8bit` share an int8 base among themselves.

    Args:
        artifacts: adapter folders by the names that you give them.
        base: hub id, local folder or bundled name of the base, as for `peftune.load`.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: an artifact is damaged, does not fit the base, or belongs to another base
            than the others.
        BaseModelError: the base cannot be found.
        UsageError: there are none, a name cannot be used, or an adapter cannot share its base.
    """
    if not isinstance(artifacts, Mapping) or not artifacts:
        message = "load_many needs adapters by name: load_many({'a': 'runs/a/adapter', …})."
        raise UsageError(message)
    opened = {name: _opened(name, artifact) for name, artifact in artifacts.items()}
    _refuse_other_bases(opened)
    first = next(iter(opened.values()))
    source = base_of(first, base)
    tokenizer = load_tokenizer(source.folder)
    device = choose_device(use_cpu=use_cpu)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = load_classifier(
            source, tokenizer, strategy=first.strategy, labels=("0", "1"), device=device, seed=0
        )
        updates = {
            name: _update(model, one, checked_contents(one, source, tokenizer))
            for name, one in opened.items()
        }
        shared = share(model, updates, rows_mix=precision_of(model) != INT8)
    classifiers = {}
    for name, one in opened.items():
        manifest = one.manifest
        view = SharedClassifier(
            shared, name, labels=manifest.labels, problem_type=PROBLEM_TYPES[manifest.task_name]
        )
        classifiers[name] = checked_classifier(view, tokenizer, one)
    return ClassifierSet(classifiers, shared)


def _opened(name: str, artifact: str | Path) -> Opened:
    if not isinstance(name, str) or not _NAME.match(name):
        message = f"'{printable(str(name)[:80])}' cannot name an adapter: a name has letters, digits, '_', '.' and '-', at most 64, and begins with a letter or digit."
        raise UsageError(message)
    opened = open_artifact(artifact)
    manifest = opened.manifest
    if not has_head(manifest.task_name):
        message = f"'{name}' ('{opened.name}') is no classifier: it has learned {manifest.task_name} and has no head. Leave it out."
        raise ArtifactError(message)
    if manifest.kind == "model":
        message = f"'{name}' ('{opened.name}') is a whole model, which shares its base with nothing. Load it alone, with peftune.load."
        raise UsageError(message)
    return opened


def _refuse_other_bases(opened: Mapping[str, Opened]) -> None:
    """Refuse adapters that do not stand on one base, held in one way and read by one tokenizer."""
    (name, first), *others = opened.items()
    for other, one in others:
        mine, its = first.manifest, one.manifest
        if mine.base.fingerprint != its.base.fingerprint:
            message = f"'{other}' belongs to the base '{its.base.name}' with fingerprint {its.base.fingerprint[:12]}…, '{name}' to '{mine.base.name}' with {mine.base.fingerprint[:12]}…. Load adapters of one base together."
            raise ArtifactError(message)
        if (mine.tokenizer_sha256, mine.pad_token_id) != (its.tokenizer_sha256, its.pad_token_id):
            message = f"'{other}' was trained with another tokenizer than '{name}'. Load adapters of one tokenizer together."
            raise ArtifactError(message)
        if _way_of_loading(first) != _way_of_loading(one):
            held = (
                f"in {its.precision}, '{name}' ({first.strategy.name}) in {mine.precision}"
                if mine.precision != its.precision
                else f"with other settings than '{name}' ({first.strategy.name})"
            )
            message = f"'{other}' ({one.strategy.name}) holds its base {held}. Load adapters that hold it in the same way together."
            raise UsageError(message)


def _way_of_loading(opened: Opened) -> dict[str, Any]:
    """Say how an adapter's base is loaded, in values that can be compared."""
    return {
        key: value.to_dict() if hasattr(value, "to_dict") else value
        for key, value in opened.strategy.load_kwargs().items()
    }


def _update(
    model: GPT2ForSequenceClassification, opened: Opened, contents: Mapping[str, bytes]
) -> Update:
    """Put an adapter onto the base as `peftune.load` does, and take off what it adds."""
    labels = len(opened.manifest.labels)
    model.score = nn.Linear(
        model.config.n_embd, labels, bias=False, device=model.device, dtype=torch.float32
    )
    strategy = opened.strategy
    prepared = strategy.prepare(model).eval()
    refuse_whole_trunk(prepared, name=opened.name, strategy=strategy.name)
    fill(prepared, opened, contents)
    return taken_off(prepared, name=opened.name, strategy=strategy.name)
