"""The model cards of artifacts and of merged checkpoints: Jinja templates, and what they are filled with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from peftune.adapters.manifest import Manifest, Rescaled
from peftune.bundled import is_bundled
from peftune.data.cleaning import CONTROL, MENTION, UNSEEN, URL
from peftune.data.text_hashes import HANDLE, LINK
from peftune.errors import markdown_code, markdown_text, printable, visible
from peftune.models.prepare import Preparation
from peftune.recipe.data import TextStep
from peftune.recipe.task_type import has_head

_FOLDER = "PATH/TO/THIS/FOLDER"
_BASE = "PATH/TO/THE/BASE"
_HUB_NAME = re.compile(r"(?:bundled:)?[A-Za-z0-9./_-]+")
_PIPELINES = {True: "text-classification", False: "text-generation"}
"""What the hub calls it, with a head or without."""

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


def artifact_card(
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
    """Write the card of an artifact: YAML front matter with `model-index`, then prose.

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
    base = preparation.base
    strategy, *settings = preparation.strategy.fields().items()
    hub_base = base.hub_id or _BASE
    library = "peft" if is_peft else "transformers" if kind == "model" else "peftune"
    return _render(
        "artifact_card.md",
        front=_front_matter(preparation, task, forgetting, library=library),
        title=f"{strategy[1]} on {base.name}",
        strategy=strategy[1],
        settings=", ".join(f"{name} {value}" for name, value in settings),
        base=base,
        base_fingerprint=preparation.base_fingerprint,
        hub_base=hub_base,
        init_base=_in_yaml(base.name if is_bundled(base.name) else hub_base),
        given_base=_given_base(base.name, base.revision),
        load=load_line(_FOLDER, base=base.name, revision=base.revision),
        initialized_from=preparation.initialized_from,
        is_adapter=kind == "adapter",
        is_peft=is_peft,
        task_type=preparation.task,
        has_head=has_head(preparation.task),
        labels=preparation.labels,
        max_length=preparation.max_length,
        precision=precision,
        task=task or {},
        scores=_score_rows(task),
        forgetting=forgetting or (),
        worse=WORSE,
        rescaled=rescaled,
        clean=clean,
    )


def merged_card(
    manifest: Manifest,
    digest: str,
    *,
    dtype: str,
    lm: bool,
    largest: float,
    allowed: float,
    flipped: int | None,
) -> str:
    """Write the card of a merged checkpoint.

    Args:
        manifest: of the artifact that was merged.
        digest: of that manifest.
        dtype: type of the checkpoint's weights.
        lm: whether it is the backbone with its LM head, rather than the classifier.
        largest: largest difference from the artifact.
        allowed: largest difference that passes.
        flipped: recorded texts that have another label than by the artifact.
    """
    base, strategy = manifest.base, str(manifest.strategy["name"])
    front = ModelCardData(
        base_model=printable(base.name) if base.revision is not None else None,
        library_name="transformers",
        pipeline_tag=_PIPELINES[not lm],
        tags=["peftune", strategy, "merged"],
    )
    return _render(
        "merged_card.md",
        front=_yaml(front),
        title=f"{strategy} on {base.name}",
        base=base.name,
        digest=digest,
        dtype=dtype,
        lm=lm,
        task_type=manifest.task_name,
        labels=manifest.labels,
        thresholds=manifest.label_thresholds,
        clean=manifest.clean,
        max_length=manifest.max_length,
        n_texts=len(manifest.reference_logits.texts),
        largest=largest,
        allowed=allowed,
        flipped=flipped,
    )


def load_line(artifact: str, *, base: str, revision: str | None) -> str:
    """Write the call that loads an artifact, on a machine that has not seen its base yet.

    Args:
        artifact: a folder, or `user/name@commit`.
        base: the name of its base.
        revision: the commit of a base on the hub; None for any other.
    """
    given = _given_base(base, revision)
    return f"peftune.load({_quoted(artifact)}" + (f", base={_quoted(given)})" if given else ")")


def _quoted(text: str) -> Markup:
    """Write a text as Python and YAML read it, in which no name of others ends what it stands in."""
    return _in_code(json.dumps(visible(text), ensure_ascii=False))


def _in_code(literal: str) -> Markup:
    """Keep a literal from ending the block of code that it stands in."""
    return Markup(literal.replace("<", "\\x3c").replace("`", "\\x60"))  # noqa: S704 - escaped


def _given_base(base: str, revision: str | None) -> str | None:
    """Say what a reader must pass for the base; None where it comes with peftune."""
    if is_bundled(base):
        return None
    return base if revision and _HUB_NAME.fullmatch(base) else _BASE


def _in_yaml(name: str) -> str:
    """Leave a name that is one word to YAML as it is, and quote any other."""
    return name if _HUB_NAME.fullmatch(name) else _quoted(name)


def _front_matter(
    preparation: Preparation,
    task: Mapping[str, Any] | None,
    forgetting: Sequence[Mapping[str, Any]] | None,
    *,
    library: str,
) -> Markup:
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
    return _yaml(data)


def _yaml(data: ModelCardData) -> Markup:
    return Markup(str(data.to_yaml()).strip())  # noqa: S704 - YAML, whose writer quotes what it must


def _score_rows(task: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return name, value and interval of each score of a run."""
    if task is None:
        return []
    rows = [
        (
            _TITLES.get(name, name),
            f"{value:.3f}",
            _interval(task["ci95"].get(_INTERVALS.get(name, name)), ".3f"),
        )
        for name, value in _scores_of(task)
    ]
    return rows or [("not measured", "-", "-")]


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


_CODE: Mapping[TextStep, Sequence[str]] = {
    "normalize-unicode": (
        f're.sub({CONTROL.pattern!a}, "", text)',
        f'unicodedata.normalize("NFC", re.sub({UNSEEN.pattern!a}, "", text))',
    ),
    "strip-html": ("without_html(text)",),
    "replace-urls": (f're.sub(r"(?i){LINK.pattern}", "{URL}", text)',),
    "replace-mentions": (f're.sub(r"{HANDLE.pattern}", "{MENTION}", text)',),
}
"""Each step of cleaning as lines of Python."""


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    """Read the templates; what they write is escaped for Markdown, unless a filter says otherwise."""
    environment = Environment(
        loader=PackageLoader("peftune.adapters"),
        autoescape=True,
        finalize=lambda value: _markdown(value) if isinstance(value, str) else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": lambda text: Markup(markdown_code(text)),  # noqa: S704 - escaped
        "interval": _interval,
        "literal": lambda text: _in_code(repr(text)),
        "markdown": _markdown,
        "quoted": _quoted,
    }
    environment.globals["cleaning"] = _CODE
    return environment


def _markdown(text: str) -> Markup:
    """Escape a text for Markdown, unless it is markup of our own."""
    return text if isinstance(text, Markup) else Markup(markdown_text(text))  # noqa: S704 - escaped
