"""The model card of an artifact: what it is, what it scored, how to use it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from peftune.adapters.card_usage import ways_to_use
from peftune.adapters.manifest import Rescaled
from peftune.errors import markdown_code, markdown_text, printable
from peftune.models.prepare import Preparation
from peftune.recipe.data import TextStep
from peftune.recipe.task_type import TaskName, task_type

_SCORES = "A probability that it gives is no chance of being right until it is compared with rows of your own."
_INT8 = "It was trained on a base in 8 bits. On the base in float32 its numbers differ a little; `peftune adapter verify` says by how much."
_INTENT = "The checks of `peftune.load` tell that these are the files that were saved and that they belong to this base. They do not tell what its maker trained it for."


def limits(
    preparation: Preparation,
    precision: str,
    forgetting: Sequence[Mapping[str, Any]] | None,
) -> Iterator[str]:
    """Say what an artifact is for, and where that ends.

    Args:
        preparation: what is known of the model.
        precision: of the base that it was trained on.
        forgetting: probe results of the run that made it, if any.
    """
    yield preparation.task_type.intended_use
    yield f"It reads the first {preparation.max_length} tokens of a text; what comes after is not seen."
    if preparation.task_type.has_classes:
        yield _SCORES
    yield (
        "Use it for nothing but its task: what it forgot of the base's abilities stands above."
        if forgetting
        else "Use it for nothing but its task: what it forgot of the base's abilities was not measured."
    )
    yield "What the base had learned it still knows: its mistakes and prejudices come from there too."
    if precision == "int8":
        yield _INT8
    yield _INTENT


def provenance(preparation: Preparation, task: Mapping[str, Any] | None) -> Iterator[str]:
    """Say what an artifact was made of, by names where they tell and by hashes always.

    Args:
        preparation: what is known of the model.
        task: scores of the run that made it, if any, with what it learned from.
    """
    base, start = preparation.base, preparation.start
    revision = f" at revision {markdown_code(base.revision)}" if base.revision else ""
    yield f"Base: {markdown_code(base.name)}{revision}, whose weights have the fingerprint `{preparation.base_fingerprint}`."
    if start is not None:
        yield f"It began as the {start.task} artifact whose `peftune.json` has the `sha256` `{start.sha256}`."
    learned = None if task is None else task.get("trained_on")
    if task is None or not learned:
        yield "Data: not recorded, for it was saved outside a run of peftune."
        return
    rows = "rows" if preparation.task_type.has_head else "documents"
    name = f"{markdown_code(str(task['data']))}, " if task.get("data") else ""
    yield f"Data: {name}{learned['rows']} training {rows}; all splits together have the fingerprint `{learned['data_fingerprint']}`. No row of them is in this folder."


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


_PIPELINES = {True: "text-classification", False: "text-generation"}
"""What the hub calls it, with a head or without."""


def model_card(
    preparation: Preparation,
    *,
    kind: str,
    is_peft: bool,
    precision: str,
    task: Mapping[str, Any] | None,
    forgetting: Sequence[Mapping[str, Any]] | None,
    rescaled: Rescaled | None = None,
    clean: Sequence[TextStep] = (),
) -> str:
    """Write the card: YAML front matter with `model-index`, then prose.

    Args:
        preparation: what `peftune.prepare` made: strategy, base, labels.
        kind: `adapter` or `model`.
        is_peft: whether plain PEFT can load it.
        precision: of the frozen weights.
        task: scores of the run that made it, if any.
        forgetting: probe results of that run, if any.
        rescaled: how it was made out of another artifact, if it was.
        clean: how every text is cleaned before it is read.
    """
    strategy, base = preparation.strategy.fields(), preparation.base
    given = ", ".join(f"{name} {value}" for name, value in strategy.items() if name != "name")
    settings, title = markdown_text(given), markdown_text(f"{strategy['name']} on {base.name}")
    library = "peft" if is_peft else "transformers" if kind == "model" else "peftune"
    lines = [
        "---",
        _front_matter(preparation, task, forgetting, library=library),
        "---",
        "",
        f"# {title}",
        "",
        f"{_what(kind, preparation.task, preparation.labels)} out of the base {markdown_code(base.name)}, fine-tuned with [peftune](https://pypi.org/project/peftune/).",
        f"Strategy `{strategy['name']}`{f' ({settings})' if settings else ''}.",
        *_origin(rescaled),
        "",
        "## Results",
        "",
        *_results(task, forgetting, rescaled),
        "",
        "## Intended use and limits",
        "",
        *(f"- {line}" for line in limits(preparation, precision, forgetting)),
        "",
        "## Made of",
        "",
        *(f"- {line}" for line in provenance(preparation, task)),
        "",
        "## Use",
        "",
        ways_to_use(preparation, kind=kind, is_peft=is_peft, clean=clean),
        "",
        "`peftune.json` names the base by the hash of its weights, the labels in order, and the logits of sixteen texts;",
        "`peftune.load` refuses any other base, and files that were changed.",
        "",
    ]
    return "\n".join(lines)


def _what(kind: str, task_name: TaskName, labels: Sequence[str]) -> str:
    """Say what it is, and of what."""
    if not task_type(task_name).has_head:
        return "A language model" if kind == "model" else "An adapter that makes a language model"
    noun = task_type(task_name).model_noun
    what = f"A {noun}" if kind == "model" else f"An adapter that makes a {noun}"
    return f"{what} of {', '.join(map(markdown_text, labels))}"


def _front_matter(
    preparation: Preparation,
    task: Mapping[str, Any] | None,
    forgetting: Sequence[Mapping[str, Any]] | None,
    *,
    library: str,
) -> str:
    strategy, base = preparation.strategy.name, preparation.base
    pipeline = _PIPELINES[preparation.task_type.has_head]
    results = eval_results(task, forgetting, pipeline=pipeline)
    dataset = hub_dataset(task)
    name = f"{strategy}-{base.name.rpartition('/')[2].replace(':', '-')}"
    name = printable(name)
    data = ModelCardData(
        base_model=base.hub_id and printable(base.hub_id),
        datasets=None if dataset is None else [printable(dataset)],
        library_name=library,
        metrics=metric_names(task) or None,
        pipeline_tag=pipeline,
        tags=["peftune", strategy],
        model_name=name if results else None,
        eval_results=results or None,
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
    left_out = (task or {}).get("leaked_rows_left_out", 0)
    read = f"{left_out:,} further rows of this split were read in training, and are left out of the scores."
    return [*result_table(task, forgetting), *(["", read] if left_out else [])]
