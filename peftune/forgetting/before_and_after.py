"""The base's scores on disk: a constant of base, text, protocol and machine, measured once."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from peftune.data.documents import documents_sha256
from peftune.fastpath.products import float32_products
from peftune.files.hash_cache import cache_folder, read_entry, write_entry
from peftune.forgetting.measurement import (
    ProbeText,
    adapter_off_forgetting,
    measure,
    measure_base,
    measure_off,
    measure_with,
)
from peftune.forgetting.results import sealed_protocol
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.architecture import unwrapped
from peftune.models.loading import load_backbone
from peftune.models.prepare import (
    Preparation,
    based_on_artifact,
    compared_with,
    preparation_of,
    prepared_again,
)
from peftune.probes import Measurement
from peftune.progress import stage

logger = logging.getLogger(__name__)

_KIND = "base-scores"
_FIELDS = ("total", "weight", "tokens")


def base_score(
    text: ProbeText,
    compute: Callable[[], Measurement],
    *,
    base_fingerprint: str,
    precision: str,
    scoring: Mapping[str, Any],
    device: torch.device,
) -> tuple[Measurement, bool]:
    """Return what a probe measures on a base, from the cache or by measuring it now.

    The name of an entry holds everything that a bit of the result can depend on, so an entry
    equals what would be measured now. A torn or changed entry counts as absent. A cache that cannot
    be written is done without, with a word in the log.

    Args:
        text: the probe and its documents.
        compute: measures the base.
        base_fingerprint: hash of the base's backbone.
        precision: how the base is held, such as `float32` or a quantization configuration.
        scoring: the scorer's share of the protocol.
        device: where the base lies.

    Returns:
        The measurement, and whether it came from the cache.
    """
    facts = {
        "base": base_fingerprint,
        "documents": documents_sha256(text.documents),
        "protocol": sealed_protocol(text, scoring)["sha256"],
        "probe": text.probe.fields(),
        "precision": precision,
        "machine": _machine(device),
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    found = _read(name, len(text.documents))
    if found is not None:
        return found, True
    measured = compute()
    _write(measured, name)
    return measured, False


def _machine(device: torch.device) -> dict[str, Any]:
    on_cuda = device.type == "cuda"
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "products": float32_products(device),
    }


def _read(key: str, count: int) -> Measurement | None:
    entry = read_entry(_KIND, key)
    try:
        with np.load(io.BytesIO(entry or b""), allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return None
    if not set(_FIELDS) <= set(values) or any(len(array) != count for array in values.values()):
        return None
    extra = {name: array for name, array in values.items() if name not in _FIELDS}
    return Measurement(values["total"], values["weight"], values["tokens"], extra=extra)


def _write(measured: Measurement, key: str) -> None:
    content = io.BytesIO()
    np.savez(
        content,
        total=measured.total,
        weight=measured.weight,
        tokens=measured.tokens,
        **dict(measured.extra),  # type: ignore[arg-type]
    )
    try:
        write_entry(_KIND, key, content.getvalue())
    except OSError as error:
        folder, reason = (
            cache_folder() / _KIND,
            getattr(error.__cause__ or error, "strerror", None),
        )
        logger.warning("the base's scores are not cached in '%s': %s", folder, reason or error)


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
        off: what the tuned model must be with its adapter disabled, where that is not the base but the
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
        off: the tuned model with its adapter disabled; None where there is none to disable.
    """

    before: Before
    after: Sequence[Measurement]
    off: Sequence[Measurement] | None

    @property
    def control(self) -> float | None:
        """Forgetting with the adapter disabled; None where there is none to disable."""
        if self.off is None:
            return None
        before = self.before
        return adapter_off_forgetting(
            before.measured if before.off is None else before.off, self.off
        )


def measure_before(model: nn.Module, texts: Sequence[ProbeText]) -> Before:
    """Measure the base of a prepared model, or take its scores from the cache.

    For a quantized base the same weights in float32 are measured as well. A model that begins as
    another artifact is measured as it is, too.

    Args:
        model: a prepared model, before its first step.
        texts: probes with their documents.
    """
    if texts:
        logger.info("measuring the base on %s", ", ".join(text.label for text in texts))
    with stage("measuring the base"):
        before = _measure_before(compared_with(model), texts)
    if preparation_of(model).initialized_from is None:
        return before
    off = measure_base(model, texts) if based_on_artifact(model) else None
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
    """Measure a trained model on every probe, and with its adapter disabled.

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
        backbone = load_backbone(preparation.base, device)
        return measure_with(backbone, preparation.tokenizer, [text])[0]

    measured, _ = _base_scores(
        texts,
        compute,
        preparation=preparation,
        precision=_FLOAT32,
        scoring=scoring,
        device=device,
    )
    return measured
