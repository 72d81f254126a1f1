"""Tables of runs and comparisons for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from peftune.baselines.baseline import TITLES
from peftune.experiments import Run
from peftune.experiments.compare.summary import Estimate, Standing, Summary, each_of_two
from peftune.stats.formats import size, with_interval
from peftune.tasks.scores import headline_scores

_FORGOTTEN = "Forgetting: bits per byte of general text, after minus before; positive is worse."
LEGEND = f"Brackets: 95% intervals, over rows or documents, and over seeds where there are three or more. {_FORGOTTEN}"
_OF_ONE_SEED = "Brackets: 95% intervals over rows or documents, of {}; another seed makes {}."
_TIES = "Ties: strategies that share a letter are not significantly different."
_TWO = "Parentheses: the figure of each of two seeds, which have no interval."
_FORGETTING = "forgetting."


def facts_of(run: Run) -> list[tuple[str, str]]:
    """Name and value of what matters in a run, what was learned beside what was forgotten."""
    learning, cost = run.learning, run.cost
    scores = list(headline_scores(learning))
    facts = [
        (
            score.title if place else f"{score.title}, {learning.n} {learning.split} rows",
            with_interval(score.value, score.interval, ".3f"),
        )
        for place, score in enumerate(scores)
    ]
    facts += [
        (f"  {TITLES.get(name, name)}", f"{known[scores[0].name]:.3f}")
        for name, known in learning.baselines.items()
        if scores[0].name in known
    ]
    facts += _facts_of_folds(run)
    for probe in run.forgetting:
        facts.append(
            (
                f"forgetting, {probe.name}",
                with_interval(probe.forgetting, probe.ci95, "+.4f"),
            )
        )
        for stage in run.forgetting.stages:
            value = with_interval(stage.forgetting[probe.name], stage.ci95[probe.name], "+.4f")
            facts.append((f"  by {stage.name}", value))
    if len(run.forgetting):
        facts.append(
            (
                "  adapter disabled (control)",
                repr(run.forgetting.controls["adapter_off_forgetting"]),
            )
        )
        facts.append(("  verdict", run.forgetting.verdict or "none"))
    facts += [
        (
            "trainable parameters",
            f"{cost.trainable_parameters:,} ({cost.trainable_parameters / cost.total_parameters:.2%})",
        ),
        ("artifact", size(cost.artifact_bytes, absent="-")),
        ("peak memory", size(cost.peak_memory_bytes, absent="-")),
        ("training", "-" if cost.train_seconds is None else f"{cost.train_seconds:.0f} s"),
        (
            "training speed",
            "-"
            if cost.train_examples_per_second is None
            else f"{cost.train_examples_per_second:.0f} examples/s",
        ),
    ]
    if cost.latency_median_ms is not None:
        late = f"95% below {cost.latency_p95_ms:.1f} ms"
        facts.append(("latency, one text", f"{cost.latency_median_ms:.1f} ms ({late})"))
    return facts


def legend_of(run: Run) -> str:
    """Say how the table of a run is read: of one model, or of those of its folds."""
    which = ("the models of these folds", "others") if run.folds else ("this one model", "another")
    return f"{_OF_ONE_SEED.format(*which)} {_FORGOTTEN}"


def _facts_of_folds(run: Run) -> list[tuple[str, str]]:
    """Name what the folds of a cross-validation say one by one, and together of the test."""
    if not run.folds:
        return []
    each = " ".join("-" if one.accuracy is None else f"{one.accuracy:.3f}" for one in run.folds)
    facts = [(f"  accuracy of {len(run.folds)} folds", each)]
    for name in run.folds[0].forgetting:
        values = " ".join(f"{one.forgetting[name]:+.4f}" for one in run.folds)
        facts.append((f"  forgetting of each fold, {name}", values))
    if run.test is not None and run.test.accuracy is not None:
        shown = with_interval(run.test.accuracy, run.test.ci95["accuracy"], ".3f")
        facts.append((f"accuracy, {run.test.n} test rows, logits of the folds averaged", shown))
    return facts


def standing_rows(summary: Summary) -> list[dict[str, str]]:
    """One row a figure, one column a strategy, most accurate first."""
    columns = {
        f"{one.strategy}, {_seeds(one)}": dict(_facts_of_standing(one, summary))
        for one in summary.standings
    }
    names = dict.fromkeys(name for facts in columns.values() for name in facts)
    return [
        {"": name, **{heading: facts.get(name, "-") for heading, facts in columns.items()}}
        for name in names
    ]


def legend(summary: Summary) -> str:
    """Say how the table of a comparison is read: nothing of what it does not show."""
    shown = [value for row in standing_rows(summary) for value in row.values()]
    seeds = max((len(one.seeds) for one in summary.standings), default=0)
    alone = f"{_OF_ONE_SEED.format('one model each', 'others')} {_FORGOTTEN}"
    parts = [alone if seeds == 1 else LEGEND]
    if any(each_of_two(figure) for one in summary.standings for figure in one.figures.values()):
        parts.append(_TWO)
    if any(value.startswith("  ties in ") for value in shown):
        parts.append(_TIES)
    if summary.leaked is not None:
        parts.append(str(summary.leaked))
    return " ".join(parts)


def baseline_rows(summary: Summary) -> list[dict[str, str]]:
    """One row a baseline, lowest first."""
    return [
        {
            "baseline": baseline.title,
            "accuracy": with_interval(
                baseline.accuracy, baseline.ci95, ".3f", absent=baseline.reason or "-"
            ),
        }
        for baseline in summary.baselines
    ]


def _seeds(standing: Standing) -> str:
    return "1 seed" if len(standing.seeds) == 1 else f"{len(standing.seeds)} seeds"


def _facts_of_standing(standing: Standing, summary: Summary) -> Iterator[tuple[str, str]]:
    """Name and value of what a strategy's seeds say together."""
    for key, estimate in standing.figures.items():
        if key in _SHOWN:
            name, shown = _SHOWN[key]
            yield name, "-" if estimate.mean is None else shown(estimate)
        elif key.startswith(_FORGETTING):
            probe = key.removeprefix(_FORGETTING)
            yield f"forgetting, {probe}", _estimated(estimate, "+.4f")
            if key in standing.ties:
                yield f"  ties in {probe}", standing.ties[key]
            for one in summary.matched:
                if one.probe == probe and standing.strategy in one.forgetting:
                    read = one.forgetting[standing.strategy]
                    name = f"  at an accuracy of {one.accuracy:.3f}"
                    yield name, _without_interval(read, "+.4f")
        if key == "accuracy" and key in standing.ties:
            yield "  ties in accuracy", standing.ties[key]
        if key == "accuracy":
            yield from _against_baseline(standing, summary)


def _against_baseline(standing: Standing, summary: Summary) -> Iterator[tuple[str, str]]:
    """Give the difference to the best baseline, on the same rows."""
    titles = {baseline.name: baseline.title for baseline in summary.baselines}
    for one in summary.against_baseline:
        if one.strategy == standing.strategy:
            yield f"  minus {titles[one.baseline]}", with_interval(one.mean, one.ci95, "+.3f")


def _estimated(estimate: Estimate, form: str) -> str:
    return with_interval(estimate.mean, estimate.ci95, form) + _each(estimate, form)


def _without_interval(estimate: Estimate, form: str) -> str:
    return with_interval(estimate.mean, None, form, absent=estimate.reason or "-") + _each(
        estimate, form
    )


def _each(estimate: Estimate, form: str) -> str:
    two = each_of_two(estimate)
    return f" ({', '.join(f'{value:{form}}' for value in two)})" if two else ""


_SHOWN: Mapping[str, tuple[str, Callable[[Estimate], str]]] = {
    "accuracy": ("accuracy", lambda estimate: _estimated(estimate, ".3f")),
    "macro_f1": ("macro F1", lambda estimate: _estimated(estimate, ".3f")),
    "train_seconds": ("training", lambda estimate: f"{estimate.mean:.0f} s"),
    "peak_memory_bytes": ("peak memory", lambda estimate: size(estimate.mean)),
    "artifact_bytes": ("artifact", lambda estimate: size(estimate.mean)),
    "trainable_parameters": ("trainable parameters", lambda estimate: f"{estimate.mean:,.0f}"),
}
"""How the table calls a figure, and how it shows one that was measured."""
