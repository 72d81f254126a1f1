"""Measure probes on models, always in the same way: before, after, and with the adapter disabled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.data.documents import load_documents
from peftune.errors import DataError
from peftune.forgetting.scorer import LanguageModelScorer, Reference
from peftune.models.prepare import (
    acting_as_base,
    based_on_artifact,
    compared_with,
    preparation_of,
    refuse_changed_base,
)
from peftune.probes import Measurement, Probe


@dataclass(frozen=True, slots=True)
class ProbeText:
    """A probe with its documents read.

    Args:
        probe: what is measured.
        documents: on what: strings, or what else the probe makes of a row.
    """

    probe: Probe
    documents: tuple[Any, ...]

    @property
    def label(self) -> str:
        """The probe's name in reports."""
        return self.probe.label


def read_probe_texts(probes: Sequence[Probe]) -> list[ProbeText]:
    """Read the documents of every probe.

    Raises:
        DataError: a probe's text cannot be used.
    """
    return [ProbeText(probe, load_documents(probe)) for probe in probes]


def measure(model: nn.Module, texts: Sequence[ProbeText]) -> list[Measurement]:
    """Measure every probe on a prepared model as it is now, beside its base.

    Training mode, gradients, weights and random state are afterwards as they were.

    Raises:
        GuardError: the base is no longer what it was when the model was prepared.
    """
    refuse_changed_base(model)
    base = compared_with(model)
    return measure_with(
        model,
        preparation_of(model).tokenizer,
        texts,
        reference=lambda: acting_as_base(base),
    )


def measure_base(model: nn.Module, texts: Sequence[ProbeText]) -> list[Measurement]:
    """Measure every probe on the untouched base inside a prepared model.

    Raises:
        GuardError: the base is no longer what it was when the model was prepared.
    """
    refuse_changed_base(model)
    with acting_as_base(model):
        return measure_with(model, preparation_of(model).tokenizer, texts)


def measure_off(
    model: nn.Module, texts: Sequence[ProbeText], after: Sequence[Measurement]
) -> list[Measurement]:
    """Measure every probe on a trained model with its adapter disabled.

    Args:
        model: a prepared model, trained.
        texts: probes with their documents.
        after: from `measure`; a probe that read the base in the same pass is not measured again.
    """
    read_with_it = not based_on_artifact(model)
    return [
        Measurement(found.adapter_disabled, found.weight, found.tokens)
        if read_with_it and found.adapter_disabled is not None
        else measure_base(model, [text])[0]
        for text, found in zip(texts, after, strict=True)
    ]


def measure_plainly(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[ProbeText]
) -> list[Measurement]:
    """Measure a prepared model as it is; the base is read as well only where a probe needs it.

    Args:
        model: a prepared model, or any other where no probe needs the base.
        tokenizer: its tokenizer.
        texts: probes with their documents.
    """
    needed = any(text.probe.needs_base for text in texts)
    base = compared_with(model) if needed else model
    return [
        measure_with(
            model,
            tokenizer,
            [text],
            reference=(lambda: acting_as_base(base)) if text.probe.needs_base else None,
        )[0]
        for text in texts
    ]


def change_of(probe: Probe, before: Measurement, after: Measurement) -> float:
    """Return how much worse a probe's value became, in its unit."""
    change = float((after.total - before.total).sum() / before.weight.sum())
    return -change if probe.higher_is_better else change


def measure_with(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[ProbeText],
    *,
    reference: Reference | None = None,
) -> list[Measurement]:
    """Measure every probe on any model around a GPT-2 backbone, as it is.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        texts: probes with their documents.
        reference: gives the base to compare with token by token; without it the model is its own,
            for the probes that need one.
    """

    @contextlib.contextmanager
    def itself() -> Iterator[nn.Module]:
        yield model

    return [
        _measured(
            LanguageModelScorer(
                model,
                tokenizer,
                reference=reference or (itself if text.probe.needs_base else None),
            ),
            text,
        )
        for text in texts
    ]


def adapter_off_forgetting(before: Sequence[Measurement], off: Sequence[Measurement]) -> float:
    """The control: with the adapter disabled, after training, the model is the base again.

    Args:
        before: the base, measured before the first training step.
        off: the trained model with its adapter disabled.

    Returns:
        The largest change of any document's total, relative to the documents' weight, over all
        probes; exactly 0.0 if the base is untouched and the measurement repeats itself.
    """
    changes = [
        float(abs(o.total - b.total).sum() / b.weight.sum())
        for b, o in zip(before, off, strict=True)
    ]
    return max(changes, default=0.0)


def _measured(scorer: LanguageModelScorer, text: ProbeText) -> Measurement:
    try:
        return text.probe.measure(scorer, text.documents)
    except ValueError as error:
        message = f"The probe '{text.label}' cannot be measured: {error}."
        raise DataError(message) from error
