"""The numbers of a model card: `model-index` for programs, a table for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult

from peftune.errors import printable
from peftune.escaping import markdown_text

_INTERVALS = {"f1": "macro_f1"}
_TITLES = {"f1": "macro F1", "bits_per_byte": "bits per byte"}
_OTHER_SCORES = ("pearson", "spearman", "mse", "bits_per_byte", "perplexity")
_GENERAL_ABILITY = "text-generation"
"""What a probe measures is the base's: language, not the task."""

WORSE = "positive is worse"


def eval_results(
    task: Mapping[str, Any] | None,
    forgetting: Sequence[Mapping[str, Any]] | None,
    *,
    pipeline: str,
) -> list[EvalResult]:
    """Give the scores of the task, and what each probe says was forgotten.

    Args:
        task: scores of the run that made the artifact, if any.
        forgetting: probe results of that run, if any.
        pipeline: what the hub calls the task.
    """
    results = [] if task is None else list(_task_results(task, pipeline))
    return results + [
        EvalResult(
            task_type=_GENERAL_ABILITY,
            dataset_type=_slug(str(probe["name"])),
            dataset_name=printable(str(probe["name"])),
            metric_type="forgetting",
            metric_name=f"forgetting{_by(probe)} in {printable(str(probe['unit']))} ({WORSE})",
            metric_value=probe["forgetting"],
        )
        for probe in forgetting or ()
    ]


def _task_results(task: Mapping[str, Any], pipeline: str) -> Iterator[EvalResult]:
    name = printable(str(task.get("data") or "unknown"))
    for metric, value in _scores_of(task):
        yield EvalResult(
            task_type=pipeline,
            dataset_type=hub_dataset(task) or _slug(name),
            dataset_name=name,
            dataset_split=task.get("split") and printable(str(task["split"])),
            metric_type=metric,
            metric_name=_TITLES.get(metric, metric),
            metric_value=value,
        )


def hub_dataset(task: Mapping[str, Any] | None) -> str | None:
    """Return the hub id of the data that was learned from, if it has one."""
    found = ((task or {}).get("trained_on") or {}).get("hub_dataset")
    return None if found is None else str(found)


def metric_names(task: Mapping[str, Any] | None) -> list[str]:
    """List the hub's names of the task's metrics."""
    return [name for name, _ in _scores_of(task)] if task is not None else []


def result_table(
    task: Mapping[str, Any] | None, forgetting: Sequence[Mapping[str, Any]] | None
) -> list[str]:
    """Write the lines of the table: value and interval of each number."""
    lines = [
        "| measured | value | 95% interval over rows or documents, of this one model |",
        "|---|---|---|",
    ]
    if task is not None:
        lines += _scores(task)
    lines += [
        f"| forgetting on {markdown_text(str(probe['name']))}, {markdown_text(str(probe['unit']))} ({WORSE}) | {probe['forgetting']:+.4f} | {_interval(probe['ci95'], '+.4f')} |"
        for probe in forgetting or []
    ]
    return lines


def _scores(task: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {_TITLES.get(name, name)} | {value:.3f} | {_interval(task['ci95'].get(_INTERVALS.get(name, name)), '.3f')} |"
        for name, value in _scores_of(task)
    ]
    first, *rest = rows or ["| not measured | - | - |"]
    name, mark, numbers = first[2:].partition(" |")
    return [
        f"| {name} on {task['n']} {markdown_text(str(task['split']))} rows{mark}{numbers}",
        *rest,
    ]


def _scores_of(task: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Give the scores of a run under the names that model cards have for them."""
    values = {"accuracy": task["accuracy"], "f1": task["macro_f1"]}
    if task["accuracy"] is None:
        values = {name: task.get("metrics", {}).get(name) for name in _OTHER_SCORES}
    for name, value in values.items():
        if value is not None:
            yield name, value


def _by(probe: Mapping[str, Any]) -> str:
    """Name the kind of probe, where it is recorded: two of them may read one text."""
    return f" by {probe['type']}" if probe.get("type") else ""


def _slug(name: str) -> str:
    """Make a name the hub takes as that of a data set, which must have no other characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unknown"


def _interval(interval: Sequence[float] | None, form: str) -> str:
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"
