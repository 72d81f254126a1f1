"""Several classifiers that share one base: one at a time, or mixed in a batch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import GPT2ForSequenceClassification

from peftune.adapters.artifact import Opened, base_of, open_artifact
from peftune.adapters.classifier import Classifier, Text, cleaned_for, whole_texts
from peftune.adapters.loading import checked_classifier, checked_contents, fill
from peftune.adapters.reference_logits import INT8, precision_of
from peftune.adapters.shared_base import (
    SharedBase,
    SharedClassifier,
    Update,
    refuse_whole_backbone,
    share,
    take_off_update,
)
from peftune.errors import ArtifactError, UsageError, printable, suggestion
from peftune.models.architecture import evaluating
from peftune.models.inference import MOST_ROWS, padded, plan_batches
from peftune.models.loading import choose_device, load_classifier
from peftune.models.tokenizer import encode_texts, load_tokenizer
from peftune.tasks.base import Prediction

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClassifierSet(Mapping[str, Classifier]):
    """Classifiers by name, on one base that is in memory once.

    A mapping: `set["a"]` is a classifier like any that `peftune.load` returns.

    Args:
        classifiers: each one by itself.
        shared: the base with all adapters.
    """

    classifiers: Mapping[str, Classifier]
    shared: SharedBase

    def __getitem__(self, name: str) -> Classifier:
        """Return one of them as a plain classifier."""
        return self.classifiers[name]

    def __iter__(self) -> Iterator[str]:
        """Give the names."""
        return iter(self.classifiers)

    def __len__(self) -> int:
        """Count the classifiers."""
        return len(self.classifiers)

    def __repr__(self) -> str:
        """Show the names."""
        return f"{type(self).__name__}({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order in which the adapters were given."""
        return tuple(self.classifiers)

    def labels_of(self, name: str) -> tuple[str, ...]:
        """Return the label names of one of them, in the order of their ids.

        Raises:
            UsageError: there is none of that name.
        """
        return self._one(name).labels

    def predict(
        self,
        texts: Sequence[Text],
        *,
        adapter: str | None = None,
        adapters: Sequence[str] | None = None,
        batch_size: int = MOST_ROWS,
    ) -> list[Prediction]:
        """Say of each text, in order, what its adapter says of it.

        Args:
            texts: strings, or pairs of strings for an adapter of text pairs.
            adapter: the one that reads all texts.
            adapters: the one that reads each text, in their order.
            batch_size: texts in one forward pass at most; fewer where they are long.

        Raises:
            UsageError: an adapter is unknown, or neither or both of `adapter` and `adapters` are
                given.
        """
        if adapters is None:
            return self._single(adapter).predict(texts, batch_size=batch_size)
        rows = self.logits(texts, adapter=adapter, adapters=adapters, batch_size=batch_size)
        return [
            self.classifiers[name].says(row[None])[0]
            for name, row in zip(adapters, rows, strict=True)
        ]

    @overload
    def logits(
        self,
        texts: Sequence[Text],
        *,
        adapter: str,
        adapters: None = None,
        batch_size: int = MOST_ROWS,
    ) -> Logits: ...

    @overload
    def logits(
        self,
        texts: Sequence[Text],
        *,
        adapter: str | None = None,
        adapters: Sequence[str],
        batch_size: int = MOST_ROWS,
    ) -> list[Logits]: ...

    def logits(
        self,
        texts: Sequence[Text],
        *,
        adapter: str | None = None,
        adapters: Sequence[str] | None = None,
        batch_size: int = MOST_ROWS,
    ) -> Logits | list[Logits]:
        """Return raw scores: (texts, labels) of one adapter, or (labels,) for each text of several.

        Args:
            texts: strings, or pairs of strings for an adapter of text pairs.
            adapter: the one that reads all texts.
            adapters: the one that reads each text, in their order.
            batch_size: texts in one forward pass at most; fewer where they are long.

        Raises:
            UsageError: an adapter is unknown, or neither or both of `adapter` and `adapters` are
                given.
        """
        if adapters is None:
            return self._single(adapter).logits(texts, batch_size=batch_size)
        if adapter is not None:
            message = (
                "adapter= reads all texts and adapters= each text by its own; pass one of them."
            )
            raise UsageError(message)
        whole = whole_texts(texts)
        if isinstance(adapters, str) or len(adapters) != len(whole):
            message = f"adapters= takes one name for each text (got {len(adapters)} for {len(whole)} texts); for one adapter write adapter=…."
            raise UsageError(message)
        for name in dict.fromkeys(adapters):
            self._one(name)
        return self._mixed(whole, adapters, batch_size)

    def _single(self, adapter: str | None) -> Classifier:
        if adapter is None:
            message = f"Say which adapter reads the texts: adapter=… for all, or adapters=[…] with one for each. {suggestion('', self.names)}"
            raise UsageError(message)
        return self._one(adapter)

    def _one(self, name: str) -> Classifier:
        if name not in self.classifiers:
            message = f"There is no adapter '{name}' here. {suggestion(name, self.names)}"
            raise UsageError(message)
        return self.classifiers[name]

    def _mixed(
        self, texts: Sequence[str], adapters: Sequence[str], batch_size: int
    ) -> list[Logits]:
        """Score each text by its own adapter; those that mix share their passes."""
        tokenizer = next(iter(self.classifiers.values())).tokenizer
        cleaned = [
            cleaned_for(self.classifiers[name].manifest, [text])[0]
            for text, name in zip(texts, adapters, strict=True)
        ]
        whole = encode_texts(tokenizer, cleaned, max_length=None)
        encoded = [
            ids[: self.classifiers[name].max_length]
            for ids, name in zip(whole, adapters, strict=True)
        ]
        model = self.shared.model
        device = next(model.parameters()).device
        rows: dict[int, Logits] = {}
        with evaluating(model):
            for pool in self._pools(adapters):
                lengths = [len(encoded[place]) for place in pool]
                for batch in plan_batches(lengths, device, rows=batch_size):
                    chosen = [pool[place] for place in batch]
                    inputs = padded(
                        [encoded[place] for place in chosen],
                        pad_token_id=int(tokenizer.pad_token_id),
                        device=device,
                    )
                    found = self.shared.logits(inputs, [adapters[place] for place in chosen])
                    rows.update(
                        zip(chosen, (row.float().cpu().numpy() for row in found), strict=True)
                    )
        _refuse_not_finite(rows.values())
        return [rows[place] for place in range(len(texts))]

    def _pools(self, adapters: Sequence[str]) -> Iterable[list[int]]:
        """Put the places together whose texts may share a pass."""
        pools: dict[str | None, list[int]] = {}
        for place, name in enumerate(adapters):
            pools.setdefault(None if self.shared.slots[name].mixes else name, []).append(place)
        return pools.values()


def _refuse_not_finite(rows: Iterable[Logits]) -> None:
    count = sum(not np.isfinite(row).all() for row in rows)
    if count:
        message = f"the model gives a logit that is not finite for {count} texts"
        raise FloatingPointError(message)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


def load_many(
    artifacts: Mapping[str, str | Path], *, base: str | None = None, use_cpu: bool = False
) -> ClassifierSet:
    """Load several adapters onto one base, which is in memory once.

    Each adapter passes the checks of `peftune.load`, and the recorded logits are replayed with all
    of them in place. Labels, task type, rank, targets and longest text may differ. Adapters of
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
            shared, name, labels=manifest.labels, problem_type=manifest.task_type.problem_type
        )
        classifiers[name] = checked_classifier(view, tokenizer, one)
    return ClassifierSet(classifiers, shared)


def _opened(name: str, artifact: str | Path) -> Opened:
    if not isinstance(name, str) or not _NAME.match(name):
        message = f"'{printable(str(name)[:80])}' cannot name an adapter: a name has letters, digits, '_', '.' and '-', at most 64, and begins with a letter or digit."
        raise UsageError(message)
    opened = open_artifact(artifact)
    manifest = opened.manifest
    if not manifest.task_type.has_head:
        message = f"'{name}' ('{opened.name}') is not a classifier: it has learned {manifest.task_name} and has no head. Leave it out."
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
    refuse_whole_backbone(prepared, name=opened.name, strategy=strategy.name)
    fill(prepared, opened, contents)
    return take_off_update(prepared, name=opened.name, strategy=strategy.name)
