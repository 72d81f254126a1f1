"""The model card of an artifact: what it is, what it scored, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

from peftune.artifacts.card_results import (
    eval_results,
    hub_dataset,
    metric_names,
    result_table,
)
from peftune.artifacts.card_scope import limits, provenance
from peftune.artifacts.card_usage import ways_to_use
from peftune.artifacts.manifest import Rescaled
from peftune.errors import printable
from peftune.escaping import markdown_code, markdown_text
from peftune.models.prepare import Preparation
from peftune.recipe.data import TextStep
from peftune.recipe.task import TaskName, has_head

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
    if not has_head(task_name):
        return "A language model" if kind == "model" else "An adapter that makes a language model"
    noun = "regression" if task_name == "regression" else "classifier"
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
    pipeline = _PIPELINES[has_head(preparation.task)]
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
