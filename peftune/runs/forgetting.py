"""The forgetting of one run: the base before training, the model after, the control between."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from peftune.forgetting.cache import base_score
from peftune.forgetting.measure import (
    ProbeText,
    adapter_off_forgetting,
    measure,
    measure_base,
    measure_off,
    measure_with,
)
from peftune.forgetting.results import ProbeResult, forgetting_of
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.forgetting.verdict import verdict
from peftune.models.base import load_trunk
from peftune.models.parts import unwrapped
from peftune.models.prepare import Preparation, preparation_of, prepare_model
from peftune.probes import Measurement
from peftune.runs.report import Forgetting

logger = logging.getLogger(__name__)

CONTROL = "adapter_off_forgetting"
_FLOAT32 = "float32"
_CONTROL_FAILED = "the control failed: with the adapter off the model is not the base"


@dataclass(frozen=True, slots=True)
class Before:
    """The base on every probe.

    Args:
        measured: in the precision in which it is trained on.
        exact: in float32, where that is another precision; else None.
        scoring: the scorer's share of the protocol.
        cached: whether any of `measured` came from the cache.
    """

    measured: Sequence[Measurement]
    exact: Sequence[Measurement] | None
    scoring: Mapping[str, Any]
    cached: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """A base and the model tuned from it on every probe.

    Args:
        before: the base.
        after: the tuned model.
        off: the tuned model with its adapter off; None where there is none to switch off.
    """

    before: Before
    after: Sequence[Measurement]
    off: Sequence[Measurement] | None


def measure_before(model: nn.Module, texts: Sequence[ProbeText]) -> Before:
    """Measure the base inside a prepared model, or take its scores from the cache.

    For a quantised base the same weights in float32 are measured as well.
    """
    if texts:
        logger.info("measuring the base on %s", ", ".join(text.label for text in texts))
    preparation = preparation_of(model)
    device = next(model.parameters()).device
    scoring = LanguageModelScorer(model, preparation.tokenizer).protocol()
    quantized = bool(getattr(unwrapped(model), "is_quantized", False))
    measured, cached = _base_scores(
        texts,
        lambda text: measure_base(model, [text])[0],
        preparation=preparation,
        precision=str(preparation.strategy.load_kwargs()) if quantized else _FLOAT32,
        scoring=scoring,
        device=device,
    )
    exact = _measure_exact(preparation, texts, scoring, device) if quantized else None
    return Before(measured, exact, scoring, cached)


def measure_tuned(model: nn.Module, texts: Sequence[ProbeText], before: Before) -> Measured:
    """Measure a trained model on every probe, and with its adapter off.

    Args:
        model: a prepared model, trained.
        texts: probes with their documents.
        before: from `measure_before`.
    """
    if texts:
        logger.info("measuring forgetting")
    after = measure(model, texts)
    off = measure_off(model, texts, after)
    if before.cached and adapter_off_forgetting(before.measured, off) != 0.0:
        logger.info("the cached scores of the base do not repeat here; measuring it afresh")
        before = dataclasses.replace(before, measured=measure_base(_fresh(model), texts))
    return Measured(before, after, off)


def summarised(
    texts: Sequence[ProbeText],
    measured: Measured,
    *,
    learned: bool | None,
    seed: int = 0,
    without: str = "the recipe has no forgetting.probes",
) -> Forgetting:
    """Set all measurements of a model against each other.

    Args:
        texts: probes with their documents.
        measured: the base and the tuned model on them.
        learned: whether the task was learned; None where it is not known.
        seed: the run's seed.
        without: why there are no probes, where there are none.
    """
    if not texts:
        return Forgetting((), {CONTROL: None}, None, without)
    before, after, off = measured.before, measured.after, measured.off
    results = [
        forgetting_of(
            text,
            before=before.measured[index],
            after=after[index],
            scoring=before.scoring,
            seed=seed,
            learned=learned,
            float_base=before.exact[index] if before.exact else None,
        )
        for index, text in enumerate(texts)
    ]
    control = None if off is None else adapter_off_forgetting(before.measured, off)
    controls = {CONTROL: control}
    if control not in (None, 0.0):
        results = [_without_verdict(result) for result in results]
        return Forgetting(results, controls, None, _CONTROL_FAILED)
    word = verdict([result.verdict for result in results])
    return Forgetting(results, controls, word, None if word else _no_verdict(learned))


def _without_verdict(result: ProbeResult) -> ProbeResult:
    reasons = [result.reason, f"verdict: {_CONTROL_FAILED}"] if result.verdict else [result.reason]
    return dataclasses.replace(
        result, verdict=None, reason="; ".join(reason for reason in reasons if reason) or None
    )


def _no_verdict(learned: bool | None) -> str:
    if learned is None:
        return "no verdict without a task score beside it"
    return "no probe has a margin"


def _base_scores(
    texts: Sequence[ProbeText],
    compute: Callable[[ProbeText], Measurement],
    *,
    preparation: Preparation,
    precision: str,
    scoring: Mapping[str, Any],
    device: torch.device,
) -> tuple[list[Measurement], bool]:
    found = [
        base_score(
            text,
            partial(compute, text),
            base_fingerprint=preparation.base_fingerprint,
            precision=precision,
            scoring=scoring,
            device=device,
        )
        for text in texts
    ]
    return [measured for measured, _ in found], any(cached for _, cached in found)


def _measure_exact(
    preparation: Preparation,
    texts: Sequence[ProbeText],
    scoring: Mapping[str, Any],
    device: torch.device,
) -> list[Measurement]:
    """Measure the base in float32: what an 8-bit base is compared with."""

    def compute(text: ProbeText) -> Measurement:
        trunk = load_trunk(preparation.base, device)
        return measure_with(trunk, preparation.tokenizer, [text])[0]

    measured, _ = _base_scores(
        texts,
        compute,
        preparation=preparation,
        precision=_FLOAT32,
        scoring=scoring,
        device=device,
    )
    return measured


def _fresh(model: nn.Module) -> nn.Module:
    """Prepare the same base again, from its files."""
    preparation = preparation_of(model)
    return prepare_model(
        str(preparation.base.folder),
        preparation.strategy,
        labels=preparation.labels,
        max_length=preparation.max_length,
        use_cpu=next(model.parameters()).device.type == "cpu",
    )
