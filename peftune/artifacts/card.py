"""The model card of an artifact: what it is, what it scored, how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from peftune.artifacts.card_usage import ways_to_use
from peftune.artifacts.manifest import Rescaled
from peftune.models.source import BaseSource
from peftune.recipe.task import TaskName, has_head

_KEYS = {"f1": "macro_f1"}
_TITLES = {"f1": "macro F1", "bits_per_byte": "bits per byte"}
_OTHER_SCORES = ("pearson", "spearman", "mse", "bits_per_byte", "perplexity")

_PIPELINES = {True: "text-classification", False: "text-generation"}
"""What the hub calls it, with a head or without."""


def model_card(
    *,
    kind: str,
    is_peft: bool,
    strategy: Mapping[str, Any],
    base: BaseSource,
    task_name: TaskName,
    labels: Sequence[str],
    task: Mapping[str, Any] | None,
    forgetting: Sequence[Mapping[str, Any]] | None,
    rescaled: Rescaled | None = None,
) -> str:
    """Write the card: YAML front matter with `model-index`, then prose.

    Args:
        kind: `adapter` or `model`.
        is_peft: whether plain PEFT can load it.
        strategy: name and hyper-parameters.
        base: which base it belongs to.
        task_name: the kind of task.
        labels: label names in the order of their ids.
        task: scores of the run that made it, if any.
        forgetting: probe results of that run, if any.
        rescaled: how it was made out of another artifact, if it was.
    """
    settings = ", ".join(f"{name} {value}" for name, value in strategy.items() if name != "name")
    lines = [
        "---",
        _front_matter(
            str(strategy["name"]),
            base,
            task,
            library="peft" if is_peft else "transformers" if kind == "model" else "peftune",
            pipeline=_PIPELINES[has_head(task_name)],
        ),
        "---",
        "",
        f"# {strategy['name']} on {base.name}",
        "",
        f"{_what(kind, task_name, labels)} out of the base `{base.name}`, fine-tuned with [peftune](https://pypi.org/project/peftune/).",
        f"Strategy `{strategy['name']}`{f' ({settings})' if settings else ''}.",
        *_origin(rescaled),
        "",
        "## Results",
        "",
        *_results(task, forgetting, rescaled),
        "",
        "## Use",
        "",
        ways_to_use(kind=kind, is_peft=is_peft, base=base, task_name=task_name, labels=labels),
        "",
        "`peftune.json` names the base by the hash of its weights, the labels in order, and the logits of sixteen texts;",
        "`peftune.load` refuses any other base, and files that were changed.",
        "",
    ]
    return "\n".join(lines)


def _what(kind: str, task_name: TaskName, labels: Sequence[str]) -> str:
    """Say what it is, and of what."""
    if not has_head(task_name):
        return "A language model" if kind == "model" else "An adapter that makes a language model"
    noun = "regression" if task_name == "regression" else "classifier"
    what = f"A {noun}" if kind == "model" else f"An adapter that makes a {noun}"
    return f"{what} of {', '.join(labels)}"


def _front_matter(
    strategy: str,
    base: BaseSource,
    task: Mapping[str, Any] | None,
    *,
    library: str,
    pipeline: str,
) -> str:
    results = None
    if task is not None:
        metrics = dict(_scores_of(task))
        results = [
            EvalResult(
                task_type=pipeline,
                dataset_type=str(task.get("data", "unknown")),
                dataset_name=str(task.get("data", "unknown")),
                metric_type=name,
                metric_name=_TITLES.get(name, name),
                metric_value=value,
            )
            for name, value in metrics.items()
        ]
    data = ModelCardData(
        base_model=base.hub_id,
        library_name=library,
        pipeline_tag=pipeline,
        tags=["peftune", strategy],
        model_name=f"{strategy}-{base.name.rpartition('/')[2].replace(':', '-')}"
        if results
        else None,
        eval_results=results,
    )
    return str(data.to_yaml()).strip()


def _origin(rescaled: Rescaled | None) -> list[str]:
    if rescaled is None:
        return []
    strength = (
        f"strength {rescaled.alpha:g}"
        if rescaled.shallow is None
        else f"a strength that rises from {rescaled.shallow:g} at the first block to {rescaled.alpha:g} at the last"
    )
    return [
        "",
        f"Rescaled to {strength} (0 is the base, 1 the tuned model) from the artifact whose `peftune.json` has the",
        f"`sha256` `{rescaled.from_sha256}`; the classification head was {rescaled.head}.",
    ]


def _results(
    task: Mapping[str, Any] | None,
    forgetting: Sequence[Mapping[str, Any]] | None,
    rescaled: Rescaled | None,
) -> list[str]:
    if task is None and not forgetting:
        missing = "Not recorded: it was saved outside a run of peftune."
        return ["Not measured at this strength." if rescaled else missing]
    lines = ["| measured | value | 95% interval |", "|---|---|---|"]
    if task is not None:
        lines += _scores(task)
    lines += [
        f"| forgetting on {result['name']}, {result['unit']} (positive is worse) | {result['forgetting']:+.4f} | {_interval(result['ci95'], '+.4f')} |"
        for result in forgetting or []
    ]
    return lines


def _scores(task: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {_TITLES.get(name, name)} | {value:.3f} | {_interval(task['ci95'].get(_KEYS.get(name, name)), '.3f')} |"
        for name, value in _scores_of(task)
    ]
    first, *rest = rows or ["| not measured | - | - |"]
    name, mark, numbers = first[2:].partition(" |")
    return [f"| {name} on {task['n']} {task['split']} rows{mark}{numbers}", *rest]


def _scores_of(task: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Give the scores of a run under the names that model cards have for them."""
    values = {"accuracy": task["accuracy"], "f1": task["macro_f1"]}
    if task["accuracy"] is None:
        values = {name: task.get("metrics", {}).get(name) for name in _OTHER_SCORES}
    for name, value in values.items():
        if value is not None:
            yield name, value


def _interval(interval: Sequence[float] | None, form: str) -> str:
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"
