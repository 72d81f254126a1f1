"""A run's numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.compare.grid import Comparison
from peftune.runs import Run

LEGEND = (
    "Brackets: 95% intervals over rows or documents. Forgetting: bits per byte of general text, "
    "after minus before; positive is worse."
)
BASELINES = {"majority": "majority class", "tfidf_logistic_regression": "TF-IDF + logistic regr."}

_KIB, _MIB = 1024, 1024**2


def facts_of(run: Run) -> list[tuple[str, str]]:
    """Name and value of what matters in a run, what was learned beside what was forgotten."""
    learning, cost = run.learning, run.cost
    facts = [
        (
            f"accuracy, {learning.n} {learning.split} rows",
            _with_interval(learning.accuracy, learning.ci95["accuracy"], ".3f"),
        ),
        ("macro F1", _with_interval(learning.macro_f1, learning.ci95["macro_f1"], ".3f")),
    ]
    facts += [
        (f"  {BASELINES.get(name, name)}", f"{scores['accuracy']:.3f}")
        for name, scores in learning.baselines.items()
    ]
    for probe in run.forgetting:
        facts.append(
            (
                f"forgetting, {probe.name}",
                _with_interval(probe.forgetting, probe.ci95, "+.4f"),
            )
        )
    if len(run.forgetting):
        facts.append(
            ("  adapter off (control)", repr(run.forgetting.controls["adapter_off_forgetting"]))
        )
        facts.append(("  verdict", run.forgetting.verdict or "none"))
    facts += [
        (
            "trainable parameters",
            f"{cost.trainable_parameters:,} ({cost.trainable_parameters / cost.total_parameters:.2%})",
        ),
        ("artifact", _bytes(cost.artifact_bytes)),
        ("peak memory", _bytes(cost.peak_memory_bytes)),
        ("training", "-" if cost.train_seconds is None else f"{cost.train_seconds:.0f} s"),
        (
            "training speed",
            "-"
            if cost.train_examples_per_second is None
            else f"{cost.train_examples_per_second:.0f} examples/s",
        ),
    ]
    return facts


def comparison_rows(comparison: Comparison) -> list[dict[str, str]]:
    """One row a fact, one column a finished run."""
    columns: dict[str, dict[str, str]] = {
        f"{run.run.strategy}, seed {run.run.seed}": dict(facts_of(run)) for run in comparison.runs
    }
    names = dict.fromkeys(name for facts in columns.values() for name in facts)
    return [
        {"": name, **{heading: facts.get(name, "-") for heading, facts in columns.items()}}
        for name in names
    ]


def _with_interval(value: float, interval: Sequence[float] | None, form: str) -> str:
    return f"{value:{form}}" + (
        f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
    )


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / _MIB:.1f} MiB" if count >= _MIB else f"{count / _KIB:.0f} KiB"
