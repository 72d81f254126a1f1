"""What an artifact's manifest records of a measurement: the numbers that a card shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from peftune.runs.report import Forgetting
from peftune.tasks.learning import Learning, learned_something


def task_record(
    learning: Learning,
    *,
    data: str,
    columns: Mapping[str, Any] | None = None,
    trained_on: Mapping[str, Any] | None = None,
    leaked: int = 0,
) -> dict[str, Any]:
    """Pick what an artifact says of its score.

    Args:
        learning: the score, with the majority class among its baselines.
        data: name of the data.
        columns: of which columns of it texts and labels are made.
        trained_on: rows, fingerprint and hub id of what was learned from, where it is known.
        leaked: rows that were read in training and that the score leaves out.
    """
    return {
        "data": data,
        "split": learning.split,
        "n": learning.n,
        "accuracy": learning.accuracy,
        "macro_f1": learning.macro_f1,
        "loss": learning.loss,
        "ci95": {key: list(value) if value else None for key, value in learning.ci95.items()},
        "metrics": dict(learning.metrics),
        "learned": learned_something(learning),
        "majority_accuracy": learning.baselines.get("majority", {}).get("accuracy"),
        "columns": dict(columns or {}),
        "trained_on": None if trained_on is None else dict(trained_on),
        **({"leaked_rows_left_out": leaked} if leaked else {}),
    }


def probe_records(forgetting: Forgetting) -> list[dict[str, Any]]:
    """Turn the results of probes into what JSON holds."""
    records: list[dict[str, Any]] = json.loads(
        json.dumps([dataclasses.asdict(probe) for probe in forgetting])
    )
    return records
