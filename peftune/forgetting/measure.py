"""Forgetting: a probe after minus the same probe before, on the same documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.data.documents import documents_sha256, load_documents
from peftune.forgetting.intervals import Interval, forgetting_interval
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.prepare import preparation_of
from peftune.models.reference import at_strength
from peftune.probes import Measurement, Probe
from peftune.seeds import stream_seed


@dataclass(frozen=True, slots=True)
class ProbeText:
    """A probe with its documents read."""

    probe: Probe
    documents: tuple[str, ...]

    @property
    def label(self) -> str:
        """The probe's name in reports."""
        return self.probe.label


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe says of one run.

    Args:
        name: the probe's name.
        type: which probe it is.
        metric: what `before` and `after` are; lower is better.
        unit: their unit.
        before: the untouched base, in the precision in which it was trained on.
        after: the tuned model.
        forgetting: after minus before; positive is worse.
        ci95: 95% paired bootstrap interval over documents.
        kl: divergence of the tuned model from the base; None where not measured.
        n_documents: documents scored.
        n_tokens: tokens scored, each once.
        data_sha256: hash of the documents.
        protocol: how they were scored, with its hash.
        reason: why values are None.
    """

    name: str
    type: str
    metric: str
    unit: str
    before: float
    after: float
    forgetting: float
    ci95: Interval | None
    kl: float | None
    n_documents: int
    n_tokens: int
    data_sha256: str
    protocol: Mapping[str, Any]
    reason: str | None


def read_probe_texts(probes: Sequence[Probe]) -> list[ProbeText]:
    """Read the documents of every probe.

    Raises:
        DataError: a probe's text cannot be used.
    """
    return [ProbeText(probe, load_documents(probe)) for probe in probes]


def measure(
    model: nn.Module, texts: Sequence[ProbeText], *, strength: float = 1.0
) -> list[Measurement]:
    """Measure every probe on a prepared model.

    Training mode, gradients, weights and random state are afterwards as they were.

    Args:
        model: from `prepare_model`.
        texts: probes with their documents.
        strength: 1 measures the model as it is, 0 its reference: the base.
    """
    preparation = preparation_of(model)
    with at_strength(model, preparation.before, strength):
        return measure_with(model, preparation.tokenizer, texts)


def measure_with(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[ProbeText]
) -> list[Measurement]:
    """Measure every probe on any model around a GPT-2 trunk, as it is."""
    scorer = LanguageModelScorer(model, tokenizer)
    return [text.probe.measure(scorer, text.documents) for text in texts]


def forgetting_of(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    text: ProbeText,
    *,
    before: Measurement,
    after: Measurement,
    seed: int,
) -> ProbeResult:
    """Set one probe's measurements against each other."""
    interval = forgetting_interval(before, after, seed=stream_seed(seed, "bootstrap"))
    reasons = ["kl: this probe does not measure it"]
    if interval is None:
        reasons.append("ci95: one document has no spread")
    return ProbeResult(
        name=text.label,
        type=text.probe.type,
        metric=text.probe.metric,
        unit=text.probe.unit,
        before=before.value,
        after=after.value,
        forgetting=_difference(before, after),
        ci95=interval,
        kl=None,
        n_documents=len(text.documents),
        n_tokens=int(after.tokens.sum()),
        data_sha256=documents_sha256(text.documents),
        protocol=LanguageModelScorer(model, tokenizer).protocol(),
        reason="; ".join(reasons),
    )


def adapter_off_forgetting(before: Sequence[Measurement], off: Sequence[Measurement]) -> float:
    """The control: with the adapter off, after training, the model is the base again.

    Args:
        before: the base, measured before the first training step.
        off: the trained model with its adapter off.

    Returns:
        The largest change of any document's total, relative to the documents' weight, over all
        probes; exactly 0.0 if the base is untouched and the measurement repeats itself.
    """
    changes = [
        float(abs(o.total - b.total).sum() / b.weight.sum())
        for b, o in zip(before, off, strict=True)
    ]
    return max(changes, default=0.0)


def _difference(before: Measurement, after: Measurement) -> float:
    return float((after.total - before.total).sum() / before.weight.sum())
