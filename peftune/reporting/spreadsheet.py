"""Render the runs as CSV: one line each, with all digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from peftune.compare.jobs import Failure
from peftune.errors import visible
from peftune.runs.evidence import Evidence
from peftune.runs.report import Run
from peftune.stats.intervals import Interval

Value = str | int | float | None

_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What makes a spreadsheet work a text out, in the letters of East Asian keyboards too."""


def spreadsheet(evidence: Sequence[Evidence], failures: Sequence[Failure]) -> str:
    """Render one line a run; empty where nothing was measured, numbers such that none is rounded.

    A text that a spreadsheet would take for a formula begins with an apostrophe; numbers stay
    numbers, and what is not seen in a text is spelled out.

    Args:
        evidence: the finished runs.
        failures: those that did not finish; they have a `reason` and no numbers.
    """
    rows = [dict(_values(item.run)) for item in evidence]
    rows += [
        {
            "strategy": failure.strategy,
            "seed": failure.seed,
            "status": "failed",
            "reason": failure.message,
        }
        for failure in failures
    ]
    columns = dict.fromkeys(["strategy", "seed", "status"])
    columns.update(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return buffer.getvalue()


def _cell(value: Value) -> Value:
    """Write a text so that a spreadsheet shows it and works nothing out."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA_STARTS) else shown


def _values(run: Run) -> Iterator[tuple[str, Value]]:
    yield "strategy", run.run.strategy
    yield "seed", run.run.seed
    yield "status", run.status
    yield "name", run.run.name
    yield "base_model", run.run.base_model
    yield "recipe_sha256", run.run.recipe_sha256
    yield "data_fingerprint", run.run.data_fingerprint
    yield "split", run.learning.split
    yield "n", run.learning.n
    for metric in ("accuracy", "macro_f1"):
        yield metric, getattr(run.learning, metric)
        yield from _bounds(metric, run.learning.ci95.get(metric))
    yield "loss", run.learning.loss
    yield from run.learning.metrics.items()
    for probe in run.forgetting:
        key = f"forgetting.{probe.name}"
        yield key, probe.forgetting
        yield from _bounds(key, probe.ci95)
        yield f"{key}.unit", probe.unit
        yield f"{key}.before", probe.before
        yield f"{key}.after", probe.after
        yield f"{key}.verdict", probe.verdict
    for name in (
        "train_seconds",
        "train_examples_per_second",
        "peak_memory_bytes",
        "trainable_parameters",
        "total_parameters",
        "artifact_bytes",
        "latency_median_ms",
        "latency_p95_ms",
    ):
        yield name, getattr(run.cost, name)


def _bounds(key: str, interval: Interval | None) -> Iterator[tuple[str, Value]]:
    low, high = (None, None) if interval is None else interval
    yield f"{key}.low", low
    yield f"{key}.high", high
