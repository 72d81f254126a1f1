"""Build a run again from the content of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftune.checks.result import report_from_json
from peftune.diagnosis import Finding
from peftune.forgetting.results import Heads, ProbeResult, Quantization
from peftune.runs.report import (
    Cost,
    Fold,
    Forgetting,
    Identity,
    PathPoint,
    Run,
    StageForgetting,
    StartedAs,
)
from peftune.stats.intervals import Interval
from peftune.stats.tests import McNemar, Power
from peftune.tasks.learning import Learning, Significance


def run_from_json(values: Mapping[str, Any], folder: Path) -> Run:
    """Build a run from the content of its `report.json`."""
    forgetting, test = values["forgetting"], values.get("test")
    probes = [_probe(probe) for probe in forgetting["probes"]]
    path = tuple(PathPoint(**point) for point in forgetting["path"])
    stages = tuple(_stage(stage) for stage in forgetting.get("stages", ()))
    return Run(
        folder=folder,
        run=_identity(values["run"]),
        learning=_learning(values["learning"]),
        forgetting=Forgetting(**{**forgetting, "probes": probes, "path": path, "stages": stages}),
        cost=Cost(**values["cost"]),
        findings=[Finding(**finding) for finding in values["findings"]],
        environment=values["environment"],
        checks=report_from_json(values["checks"]),
        status=values["status"],
        folds=tuple(Fold(**fold) for fold in values.get("folds", ())),
        test=None if test is None else _learning(test),
    )


def _learning(values: Mapping[str, Any]) -> Learning:
    pairs = {metric: _pair(interval) for metric, interval in values["ci95"].items()}
    known = values.get("significance")
    significance = None if known is None else Significance(**known)
    return Learning(**{**values, "ci95": pairs, "significance": significance})


def _identity(values: Mapping[str, Any]) -> Identity:
    start = values.get("start")
    return Identity(**{**values, "start": None if start is None else StartedAs(**start)})


def _stage(values: Mapping[str, Any]) -> StageForgetting:
    ci95 = {name: _pair(interval) for name, interval in values["ci95"].items()}
    return StageForgetting(**{**values, "ci95": ci95})


def _probe(values: Mapping[str, Any]) -> ProbeResult:
    parts = {"power": Power, "mcnemar": McNemar, "heads": Heads, "quantization": Quantization}
    built = {key: part(**values[key]) for key, part in parts.items() if values[key] is not None}
    pairs = {key: _pair(values[key]) for key in ("ci95", "ci90", "kl_ci95")}
    return ProbeResult(**{**values, **built, **pairs})


def _pair(interval: Sequence[float] | None) -> Interval | None:
    """Make a pair of what JSON holds as a list."""
    return None if interval is None else (interval[0], interval[1])
