"""How fast a contender trains and classifies, in how much memory, and what it saves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import StepClock
from benchmarks.contenders import contender
from benchmarks.contenders.setup import Session, Setup
from benchmarks.memory import device_peaks, larger, peak_bytes, resident_bytes

_FIRST_TEXTS = 4
"""Texts that are classified before the clock runs, since a first call sets things up."""


def run(
    name: str,
    setup: dict[str, Any],
    *,
    warm_up: int,
    tokens: int,
    texts: Sequence[str] = (),
    save: bool = False,
) -> dict[str, Any]:
    """Train for some steps and say what they cost.

    Args:
        name: the contender.
        setup: fields of `Setup`; its steps are those of one pass over its rows, and the warm-up's.
        warm_up: steps at the beginning that do not count.
        tokens: real tokens of one pass over the rows.
        texts: classified afterwards, if any.
        save: whether what was learned is saved and its bytes counted.
    """
    work = Setup(**setup)
    chosen = contender(name)
    imports = resident_bytes()
    session, clock = chosen.build(work), StepClock()
    loaded, loaded_on_device = peak_bytes(), device_peaks(work.device)
    session.train([clock])
    seconds = clock.seconds[warm_up:]
    peaks = device_peaks(work.device)
    memory = {
        "imports": imports,
        "peak": larger(loaded, peak_bytes()),
        "device": peaks and {k: max(v, (loaded_on_device or {})[k]) for k, v in peaks.items()},
    }
    return {
        **_speed(seconds, batch=work.batch, tokens_per_row=tokens / work.count),
        "warm_up_seconds": clock.seconds[:warm_up],
        "step_seconds": seconds,
        "memory": {**memory, "parts": _parts(memory, clock.parts)},
        "evaluation": _evaluated(session, texts) if texts else None,
        "saved": _saved(session) if save else None,
    }


def _speed(seconds: Sequence[float], *, batch: int, tokens_per_row: float) -> dict[str, float]:
    """Divide the rows of the counted steps by their seconds.

    The sum decides, not the median: batches hold texts of like length, so steps are not alike, and
    the median step is shorter than the mean one.
    """
    rows = batch * len(seconds)
    return {
        "examples_per_second": rows / sum(seconds),
        "tokens_per_second": rows * tokens_per_row / sum(seconds),
        "step_p50": float(np.percentile(seconds, 50)),
        "step_p95": float(np.percentile(seconds, 95)),
    }


def _parts(memory: dict[str, Any], known: dict[str, int]) -> dict[str, int | None]:
    """Split the peak: what is known to be what, and the rest, which is activations and buffers.

    On a GPU that is the device's memory; on a CPU the process's, without what imports took.
    """
    if memory["device"]:
        total = memory["device"]["allocated"]
    elif memory["peak"] is None:
        total = None
    else:
        total = memory["peak"] - memory["imports"]
    rest = None if total is None else total - sum(known.values())
    return {"total": total, **known, "rest": rest}


def _evaluated(session: Session, texts: Sequence[str]) -> dict[str, float]:
    """Classify texts, from strings to labels."""
    classify = session.classifier()
    classify(texts[:_FIRST_TEXTS])
    started = time.perf_counter()
    classify(texts)
    seconds = time.perf_counter() - started
    return {
        "texts": len(texts),
        "seconds": seconds,
        "examples_per_second": len(texts) / seconds,
    }


def _saved(session: Session) -> dict[str, int]:
    """Count the bytes of what is shared: the weights alone, and the whole folder."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        session.save(Path(folder) / "saved")
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {
            "weights": sum(p.stat().st_size for p in files if p.suffix == ".safetensors"),
            "folder": sum(p.stat().st_size for p in files),
        }
