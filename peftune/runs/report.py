"""The report of a run: every number, and the reason where there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peftune._version import __version__
from peftune.checks.result import CheckReport, report_from_json
from peftune.diagnosis import Finding
from peftune.forgetting.intervals import Interval
from peftune.forgetting.results import Heads, ProbeResult, Quantization
from peftune.forgetting.statistics import McNemar, Power
from peftune.forgetting.verdict import Verdict
from peftune.training.learning import Learning

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """What was run.

    Args:
        name: the recipe's name.
        strategy: name of the strategy.
        strategy_config: its hyper-parameters.
        seed: seed of the training.
        base_model: name of the base.
        base_fingerprint: hash of the base's trunk.
        recipe_sha256: hash of the resolved recipe.
        data_fingerprint: hash of the rows of every split, in order.
        texts_sha256: hash of the texts that training reads or decides by beside the task.
        order_sha256: hash of the training batches in the order in which they were read; None for a
            resumed run, and where other processes prepared them.
    """

    name: str
    strategy: str
    strategy_config: Mapping[str, Any]
    seed: int
    base_model: str
    base_fingerprint: str
    recipe_sha256: str
    data_fingerprint: str
    texts_sha256: str
    order_sha256: str | None


@dataclass(frozen=True, slots=True)
class PathPoint:
    """A point on the way from the base to the tuned model, measured on the reported rows and texts.

    Args:
        strength: 0 is the base's trunk, 1 the tuned one; the classification head is the tuned one.
        step: the step whose weights are tuned; None for those that the run kept.
        accuracy: share of rows with the right label.
        macro_f1: F1 averaged over labels.
        forgetting: by probe, in its unit, positive is worse.
    """

    strength: float
    step: int | None
    accuracy: float
    macro_f1: float
    forgetting: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What the probes found, by name: `run.forgetting["general-text"].forgetting`.

    Args:
        probes: one result a probe.
        controls: `adapter_off_forgetting`: exactly 0.0, or the numbers are not to be trusted.
        verdict: one word over all probes; None without probes or with a failed control.
        reason: why the verdict is None.
        path: the way from the base to the tuned model, where the recipe asks for it.
    """

    probes: Sequence[ProbeResult]
    controls: Mapping[str, float | None]
    verdict: Verdict | None
    reason: str | None = None
    path: Sequence[PathPoint] = ()

    def __getitem__(self, name: str) -> ProbeResult:
        """Return a probe's result by its name."""
        for probe in self.probes:
            if probe.name == name:
                return probe
        message = f"no probe '{name}'; there are: {', '.join(probe.name for probe in self.probes) or 'none'}"
        raise KeyError(message)

    def __iter__(self) -> Iterator[ProbeResult]:
        """Go through the results in the order of the recipe."""
        return iter(self.probes)

    def __len__(self) -> int:
        """Count the probes."""
        return len(self.probes)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the run cost.

    Args:
        train_seconds: time in training steps, without evaluation; None for a resumed run.
        train_examples_per_second: rows read in training by that time.
        peak_memory_bytes: peak of the process (CPU, libraries included) or the device (CUDA).
        trainable_parameters: numbers that learn.
        total_parameters: numbers of the model, each once.
        artifact_bytes: size of the artifact folder.
        examples_seen: rows read in training, repeats counted.
        steps: optimizer steps.
        reason: why values are None.
    """

    train_seconds: float | None
    train_examples_per_second: float | None
    peak_memory_bytes: int | None
    trainable_parameters: int
    total_parameters: int
    artifact_bytes: int
    examples_seen: int
    steps: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Args:
        folder: the run folder.
        run: what was run.
        learning: the score on held-out rows.
        forgetting: what the probes found.
        cost: time, memory, sizes.
        findings: diagnosed pitfalls.
        environment: versions, device, threads and seed streams.
        checks: what was looked for in the data before training.
        status: `complete`.
    """

    folder: Path
    run: Identity
    learning: Learning
    forgetting: Forgetting
    cost: Cost
    findings: Sequence[Finding]
    environment: Mapping[str, Any]
    checks: CheckReport
    status: Literal["complete"] = "complete"

    @property
    def artifact(self) -> Path:
        """The folder to share: `adapter/`, or `model/` where every weight learned."""
        adapter = self.folder / "adapter"
        return adapter if adapter.is_dir() else self.folder / "model"

    def as_json(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        values = dataclasses.asdict(self)
        del values["folder"]
        return {**_head(values.pop("status")), **values}


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that did not come to its end: `report.json` has no numbers.

    Args:
        status: `failed` by a fault, or `interrupted` by a person or the system.
        reason: what happened.
    """

    status: Literal["failed", "interrupted"]
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        return {**_head(self.status), "reason": self.reason}


def _head(status: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "peftune_version": __version__,
        "status": status,
    }


def run_from_json(values: Mapping[str, Any], folder: Path) -> Run:
    """Build a run from the content of its `report.json`."""
    learning, forgetting = values["learning"], values["forgetting"]
    pairs = {metric: _pair(interval) for metric, interval in learning["ci95"].items()}
    probes = [_probe(probe) for probe in forgetting["probes"]]
    path = tuple(PathPoint(**point) for point in forgetting["path"])
    return Run(
        folder=folder,
        run=Identity(**values["run"]),
        learning=Learning(**{**learning, "ci95": pairs}),
        forgetting=Forgetting(**{**forgetting, "probes": probes, "path": path}),
        cost=Cost(**values["cost"]),
        findings=[Finding(**finding) for finding in values["findings"]],
        environment=values["environment"],
        checks=report_from_json(values["checks"]),
        status=values["status"],
    )


def _probe(values: Mapping[str, Any]) -> ProbeResult:
    parts = {"power": Power, "mcnemar": McNemar, "heads": Heads, "quantization": Quantization}
    built = {key: part(**values[key]) for key, part in parts.items() if values[key] is not None}
    pairs = {key: _pair(values[key]) for key in ("ci95", "ci90", "kl_ci95")}
    return ProbeResult(**{**values, **built, **pairs})


def _pair(interval: Sequence[float] | None) -> Interval | None:
    """Make a pair of what JSON holds as a list."""
    return None if interval is None else (interval[0], interval[1])
