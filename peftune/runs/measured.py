"""The base before training and the model after it, on every probe, with the control between."""

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
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.base import load_trunk
from peftune.models.origin import compared_with, prepared_again, stands_on_its_start
from peftune.models.parts import unwrapped
from peftune.models.prepare import Preparation, preparation_of
from peftune.probes import Measurement
from peftune.progress import stage

logger = logging.getLogger(__name__)

_FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class Before:
    """The base on every probe.

    Args:
        measured: in the precision in which it is trained on.
        exact: in float32, where that is another precision; else None.
        scoring: the scorer's share of the protocol.
        cached: whether any of `measured` came from the cache.
        start: the model before the first step, where it does not begin as the base.
        off: what the tuned model must be with its adapter off, where that is not the base but the
            start, on which the strategy was put.
    """

    measured: Sequence[Measurement]
    exact: Sequence[Measurement] | None
    scoring: Mapping[str, Any]
    cached: bool
    start: Sequence[Measurement] | None = None
    off: Sequence[Measurement] | None = None


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

    @property
    def control(self) -> float | None:
        """Forgetting with the adapter off; None where there is none to switch off."""
        if self.off is None:
            return None
        before = self.before
        return adapter_off_forgetting(
            before.measured if before.off is None else before.off, self.off
        )


def measure_before(model: nn.Module, texts: Sequence[ProbeText]) -> Before:
    """Measure the base of a prepared model, or take its scores from the cache.

    For a quantised base the same weights in float32 are measured as well. A model that begins as
    another artifact is measured as it is, too.

    Args:
        model: a prepared model, before its first step.
        texts: probes with their documents.
    """
    if texts:
        logger.info("measuring the base on %s", ", ".join(text.label for text in texts))
    with stage("measuring the base"):
        before = _measure_before(compared_with(model), texts)
    if preparation_of(model).start is None:
        return before
    off = measure_base(model, texts) if stands_on_its_start(model) else None
    return dataclasses.replace(before, start=measure(model, texts), off=off)


def _measure_before(model: nn.Module, texts: Sequence[ProbeText]) -> Before:
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
    with stage("in float32"):
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
    with stage("measuring forgetting"):
        after = measure(model, texts)
    off = measure_off(model, texts, after)
    measured = Measured(before, after, off)
    # On another start the control cannot tell whether the cached scores of the base repeat here.
    doubtful = before.off is not None or measured.control != 0.0
    if before.cached and doubtful:
        logger.info("the cached scores of the base may not repeat here; measuring it afresh")
        base = compared_with(model)
        fresh = measure_base(prepared_again(model) if base is model else base, texts)
        measured = dataclasses.replace(
            measured, before=dataclasses.replace(before, measured=fresh)
        )
    return measured


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
