"""What the folds of a cross-validation say together: scores, forgetting, cost and findings."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from peftune.baselines.scores import COUNTS, P_VALUES
from peftune.data.task import CROSS_VALIDATION, Task
from peftune.diagnosis import Finding
from peftune.forgetting.results import ProbeResult, judged_change
from peftune.forgetting.verdict import verdict
from peftune.probes.base import TOO_LARGE
from peftune.runs.evidence import DocumentScores, Evidence
from peftune.runs.forgetting import CONTROL
from peftune.runs.report import Cost, Forgetting, Run
from peftune.tasks.judge import judge
from peftune.tasks.learning import Learning

_OF_ONE_MODEL = "kl_ci95, mcnemar, heads, quantization: several models were measured; the report of each fold has its own"
_LEAST = np.finfo(np.float64).tiny


def learning_across(found: Sequence[Evidence], task: Task, *, metric: str | None) -> Learning:
    """Score every row of train by what the run said that did not see it."""
    probabilities = np.concatenate([one.rows.probabilities for one in found])
    labels = np.concatenate([one.rows.labels for one in found])
    return judge(
        np.log(np.maximum(probabilities, _LEAST)),
        tuple(labels.tolist()),
        names=task.labels,
        split=CROSS_VALIDATION,
        metric=metric,
        baselines=_baselines([one.run.learning for one in found]),
    )


def _baselines(found: Sequence[Learning]) -> dict[str, dict[str, float]]:
    """Average the baselines over folds, each as often as it has rows; counts of rows add up."""
    weights = [learning.n for learning in found]

    def together(name: str, metric: str) -> float:
        values = [one.baselines[name][metric] for one in found]
        return sum(values) if metric in COUNTS else float(np.average(values, weights=weights))

    return {
        name: {
            metric: together(name, metric)
            for metric in scores
            # It is of one model's answers, and several models answered.
            if metric not in P_VALUES
        }
        for name, scores in found[0].baselines.items()
    }


def documents_across(found: Sequence[Evidence]) -> dict[str, DocumentScores]:
    """Average what the folds say of every document; they share the base's numbers."""
    return {
        name: dataclasses.replace(
            first, after=np.mean([one.documents[name].after for one in found], axis=0)
        )
        for name, first in found[0].documents.items()
    }


def forgetting_across(
    runs: Sequence[Run],
    documents: Mapping[str, DocumentScores],
    *,
    learned: bool,
) -> Forgetting:
    """Say what the folds forgot on average; a control that failed in one has failed."""
    controls = [run.forgetting.controls[CONTROL] for run in runs]
    measured = [control for control in controls if control is not None]
    control = max(measured, key=abs) if measured else None
    sound = control in (None, 0.0)
    probes = [
        _probe(
            [run.forgetting[probe.name] for run in runs],
            documents[probe.name],
            learned=learned,
            sound=sound,
        )
        for probe in runs[0].forgetting
    ]
    if not probes or not sound:
        first = next((run.forgetting for run in runs if run.forgetting.verdict is None), None)
        return Forgetting(probes, {CONTROL: control}, None, first.reason if first else None)
    word = verdict([probe.verdict for probe in probes])
    return Forgetting(probes, {CONTROL: control}, word, None if word else "no probe has a margin")


def _probe(
    found: Sequence[ProbeResult],
    documents: DocumentScores,
    *,
    learned: bool,
    sound: bool,
) -> ProbeResult:
    """Put the mean of the folds in the place of one model, with intervals over documents."""
    first = found[0]
    sign = -1.0 if documents.higher_is_better else 1.0
    judged = judged_change(
        sign * documents.before,
        sign * documents.after,
        documents.weight,
        margin=first.margin,
        # Averaged over folds, a document is right in a share of them.
        right_or_wrong=False,
        learned=learned,
    )
    kls = [one.kl for one in found if one.kl is not None]
    details = {key: _mean([one.details[key] for one in found]) for key in first.details}
    too_large = [f"details: {key} {TOO_LARGE}" for key, mean in details.items() if mean is None]
    return dataclasses.replace(
        first,
        after=statistics.fmean(one.after for one in found),
        forgetting=statistics.fmean(one.forgetting for one in found),
        ci95=judged.ci95,
        ci90=judged.ci90,
        verdict=judged.verdict if sound else None,
        power=judged.power,
        kl=statistics.fmean(kls) if kls else None,
        kl_ci95=None,
        mcnemar=None,
        heads=None,
        quantization=None,
        details=details,
        reason="; ".join(dict.fromkeys(filter(None, (first.reason, *too_large, _OF_ONE_MODEL)))),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def cost_across(costs: Sequence[Cost]) -> Cost:
    """Add up what the folds cost; memory is that of the largest."""
    seconds = [cost.train_seconds for cost in costs]
    peaks = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
    timed = [second for second in seconds if second is not None]
    together = sum(timed) if len(timed) == len(costs) else None
    examples = sum(cost.examples_seen for cost in costs)
    reasons = list(dict.fromkeys(cost.reason for cost in costs if cost.reason))
    return dataclasses.replace(
        costs[0],
        train_seconds=together,
        train_examples_per_second=examples / together if together else None,
        peak_memory_bytes=max(peaks, default=None),
        artifact_bytes=sum(cost.artifact_bytes for cost in costs),
        examples_seen=examples,
        steps=sum(cost.steps for cost in costs),
        reason="; ".join(reasons) or None,
    )


def findings_across(runs: Sequence[Run]) -> list[Finding]:
    """Tell each pitfall once, as the first fold has it, with how many have it."""
    by_code: dict[str, list[tuple[int, Finding]]] = {}
    for number, run in enumerate(runs):
        for finding in run.findings:
            by_code.setdefault(finding.code, []).append((number, finding))
    return [
        dataclasses.replace(
            seen[0][1],
            message=f"In {len({number for number, _ in seen})} of {len(runs)} folds; fold {seen[0][0]}: {seen[0][1].message}",
        )
        for seen in by_code.values()
    ]
