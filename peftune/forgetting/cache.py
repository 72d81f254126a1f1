"""The base's scores on disk: a constant of base, text, protocol and machine, measured once."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from peftune.data.documents import documents_sha256
from peftune.files.remembered import cache_folder, read_entry, write_entry
from peftune.forgetting.measure import ProbeText
from peftune.forgetting.results import sealed_protocol
from peftune.kernels.products import float32_products
from peftune.probes import Measurement

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
        base_fingerprint: hash of the base's trunk.
        precision: how the base is held, such as `float32` or a quantisation configuration.
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
    return Measurement(values["total"], values["weight"], values["tokens"], extra)


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
