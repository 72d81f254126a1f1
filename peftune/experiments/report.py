"""The report of a run: every number, and the reason where there is none."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftune._version import __version__
from peftune.display import Block, Displayed, data_frame
from peftune.errors import GateError, UsageError
from peftune.findings.finding import CheckReport, Finding
from peftune.forgetting.before_and_after import Measured
from peftune.forgetting.measurement import ProbeText
from peftune.forgetting.results import ProbeResult, Verdict, forgetting_of, verdict
from peftune.models.prepare import InitializedAs
from peftune.recipe.task_type import TaskName
from peftune.stats.formats import with_interval
from peftune.stats.intervals import Interval
from peftune.tasks.scores import Learning, headline_scores

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
PAGE = "report.html"
"""The page of a run or a comparison, in its folder."""

OF_FOLDS = ("folds", "test")
"""Keys that the report of a cross-validation has besides, and no other report."""

NOTHING_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class InitialArtifact:
    """The artifact that training was initialized from.

    Args:
        kind: `adapter`: the same adapter went on learning; `weights`: it was copied into weights
            that are trained; `base`: it is the base under the adapter, and lies in the run's `base/`.
        artifact_sha256: digest of its manifest.
        task: what it had learned.
        base_fingerprint: hash of the backbone that the run's own artifact belongs to.
    """

    kind: InitializedAs
    artifact_sha256: str
    task: TaskName
    base_fingerprint: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a run.

    Args:
        name: the recipe's name.
        strategy: name of the strategy.
        strategy_config: its hyper-parameters.
        seed: seed of the training.
        base_model: name of the base.
        base_fingerprint: hash of the base's backbone.
        recipe_sha256: hash of the resolved recipe.
        data_fingerprint: hash of the rows of every split, in order.
        texts_sha256: hash of the texts that training reads or decides by beside the task.
        order_sha256: hash of the training batches in the order in which they were read; None for a
            resumed run, and where other processes prepared them.
        start_sha256: hash of what the run is initialized from beside the base; of nothing for the base.
        start: what the training began as, where that is not the base.
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
    start_sha256: str = NOTHING_SHA256
    start: InitialArtifact | None = None


@dataclass(frozen=True, slots=True)
class PathPoint:
    """A point on the path from the base to the tuned model, on the evaluation rows and documents.

    Args:
        strength: 0 is the base's backbone, 1 the tuned one; the classification head is the tuned one.
        step: the step whose weights are tuned; None for those that the run kept.
        accuracy: share of rows with the right label.
        macro_f1: F1 averaged over labels.
        forgetting: by probe, in its unit, positive is worse.
        accuracy_without_leaked: accuracy without the rows whose text was read in training; None
            where no row leaked, or all did.
    """

    strength: float
    step: int | None
    accuracy: float | None
    macro_f1: float | None
    forgetting: Mapping[str, float]
    accuracy_without_leaked: float | None = None


@dataclass(frozen=True, slots=True)
class StageForgetting:
    """Forgetting of one stage: the model after it compared with the model after the one before.

    Args:
        name: of the stage; `start` for that of `model.init_from`; the recipe's for its own task.
        task: what was learned in it.
        forgetting: by probe, in its unit, positive is worse; over all stages they add up to the
            probe's forgetting.
        ci95: 95% interval of each over documents, of this one model.
    """

    name: str
    task: TaskName
    forgetting: Mapping[str, float]
    ci95: Mapping[str, Interval | None]


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Results of the probes, by name: `run.forgetting["general-text"].forgetting`.

    Args:
        probes: one result a probe.
        controls: `adapter_off_forgetting`: exactly 0.0, or the numbers are not to be trusted.
        verdict: one word over all probes; None without probes or with a failed control.
        reason: why the verdict is None.
        path: the way from the base to the tuned model, where the recipe asks for it.
        stages: what each stage changed, in order; empty where the training began as the base.
    """

    probes: Sequence[ProbeResult]
    controls: Mapping[str, float | None]
    verdict: Verdict | None
    reason: str | None = None
    path: Sequence[PathPoint] = ()
    stages: Sequence[StageForgetting] = ()

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

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a probe."""
        return data_frame(dataclasses.asdict(probe) for probe in self.probes)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a run.

    Args:
        train_seconds: time in training steps, without evaluation; None for a resumed run.
        train_examples_per_second: rows read in training by that time.
        peak_memory_bytes: peak of the process (CPU, libraries included) or the device (CUDA).
        trainable_parameters: number of trained parameters.
        total_parameters: numbers of the model, each once.
        artifact_bytes: size of the artifact folder.
        examples_seen: rows read in training, repeats counted.
        steps: optimizer steps.
        train_dtype: type that training computed in: float32 or bfloat16.
        reason: why values are None.
        latency_median_ms: milliseconds for one text by itself, from string to label; the median.
        latency_p95_ms: 95th percentile of the same.
        latency_texts: scored rows that were timed.
        latency_device: where it was measured: cpu, or the name of the GPU.
    """

    train_seconds: float | None
    train_examples_per_second: float | None
    peak_memory_bytes: int | None
    trainable_parameters: int
    total_parameters: int
    artifact_bytes: int
    examples_seen: int
    steps: int
    train_dtype: Literal["float32", "bfloat16"]
    reason: str | None = None
    latency_median_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_texts: int | None = None
    latency_device: str | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of a cross-validation: a run that did not see its rows.

    Args:
        folder: its run folder, relative to that of the cross-validation.
        n: rows of the fold.
        accuracy: share of them with the right label.
        macro_f1: F1 averaged over labels.
        loss: mean cross-entropy, nats.
        forgetting: by probe, in its unit, positive is worse.
        control: the run's `adapter_off_forgetting`.
    """

    folder: str
    n: int
    accuracy: float | None
    macro_f1: float | None
    loss: float
    forgetting: Mapping[str, float]
    control: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Run(Displayed):
    """A finished run.

    Its `repr` is the scores, the forgetting and the cost; the intervals are of this one model.

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
        folds: the runs of a cross-validation, in order; empty for any other run, whose report does
            not have the key.
        test: score of the folds together on the test, their logits averaged; None without folds or
            without a test, and the report then does not have the key.
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
    folds: Sequence[Fold] = ()
    test: Learning | None = None

    @property
    def artifact(self) -> Path:
        """The folder to share: `adapter/`, or `model/` where every weight was trained.

        Raises:
            UsageError: the run is a cross-validation, of which each fold has its own.
        """
        if self.folds:
            message = f"'{self.folder}' is a cross-validation: each of its {len(self.folds)} folds has an artifact, in '{self.folds[0].folder}' and so on, and none is better than the others. Run the recipe without data.cross_validation for one to share."
            raise UsageError(message)
        adapter = self.folder / "adapter"
        return adapter if adapter.is_dir() else self.folder / "model"

    @property
    def report(self) -> Path:
        """The page for people, `report.html`; `peftune.report(run.folder)` writes it again."""
        return self.folder / PAGE

    def _blocks(self) -> Iterator[Block]:
        yield f"Run of {self.run.strategy}, seed {self.run.seed}, in {self.folder}"
        facts = {
            f"{score.title}, {self.learning.n} {self.learning.split} rows": with_interval(
                score.value, score.interval, ".3f"
            )
            for score in headline_scores(self.learning)
        }
        facts |= {
            f"forgetting, {probe.name}": with_interval(probe.forgetting, probe.ci95, "+.4f")
            for probe in self.forgetting
        }
        facts["verdict"] = self.forgetting.verdict or f"none: {self.forgetting.reason}"
        facts["trainable parameters"] = f"{self.cost.trainable_parameters:,}"
        facts["artifact"] = f"{self.cost.artifact_bytes:,} bytes"
        yield [{"": name, "value": value} for name, value in facts.items()]
        yield "\n".join(f"{found.severity}: {found.message}" for found in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        values = dataclasses.asdict(self)
        del values["folder"]
        for key in OF_FOLDS:  # there only where there are folds, and a test
            if not values[key]:
                del values[key]
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


def check_budget(runs: Sequence[Run], budget: float | None) -> None:
    """Fail runs that forgot more than their recipe allows; they are kept.

    Args:
        runs: finished runs.
        budget: largest allowed forgetting in bits per byte; None allows any.

    Raises:
        GateError: probes in bits per byte are over the budget; a line for each.
    """
    if budget is None:
        return
    faults = [
        f"Forgetting on '{probe.name}' is {probe.forgetting:+.4f} bits per byte, over the budget of {budget:g}. The run is kept in '{run.folder}'."
        for run in runs
        for probe in run.forgetting
        if probe.unit == "bits/byte" and probe.forgetting > budget
    ]
    if faults:
        raise GateError(*faults)


CONTROL = "adapter_off_forgetting"
_CONTROL_FAILED = "the control failed: with the adapter disabled the model is not the base"


def summarized(
    texts: Sequence[ProbeText],
    measured: Measured,
    *,
    learned: bool | None,
    without: str = "the recipe has no forgetting.probes",
) -> Forgetting:
    """Set all measurements of a model against each other.

    Args:
        texts: probes with their documents.
        measured: the base and the tuned model on them.
        learned: whether the task was learned; None where it is not known.
        without: why there are no probes, where there are none.
    """
    if not texts:
        return Forgetting((), {CONTROL: None}, None, without)
    before, after = measured.before, measured.after
    results = [
        forgetting_of(
            text,
            before=before.measured[index],
            after=after[index],
            scoring=before.scoring,
            learned=learned,
            float_base=before.exact[index] if before.exact else None,
        )
        for index, text in enumerate(texts)
    ]
    control = measured.control
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
