"""The result of a comparison: strategies over seeds, their differences, the answer, and its table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peftune.baselines.baseline import TITLES, Baseline
from peftune.experiments import Run
from peftune.findings.evidence import Collapse
from peftune.stats.formats import size, with_interval
from peftune.stats.intervals import Interval
from peftune.stats.tests import McNemar
from peftune.tasks.scores import headline_scores

HeldEqual = Literal["examples_seen", "steps", "tuned"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of one strategy over its seeds.

    Args:
        mean: over seeds; None where it was not measured.
        ci95: 95% interval for another seed and other rows or documents of the same kind; with one
            seed for other rows or documents alone, with two None.
        values: the figure of each seed, in the order of the seeds.
        reason: why `mean` or `ci95` is None.
    """

    mean: float | None
    ci95: Interval | None
    values: Sequence[float | None]
    reason: str | None = None


def each_of_two(estimate: Estimate) -> tuple[float, ...]:
    """Return the two values of a figure that only two seeds have; otherwise none.

    Their mean alone would hide how far they differ, and no interval can say it.
    """
    known = tuple(value for value in estimate.values if value is not None)
    return known if len(known) == 2 and estimate.ci95 is None else ()  # noqa: PLR2004 - two


@dataclass(frozen=True, slots=True)
class Standing:
    """One strategy over its seeds.

    Args:
        strategy: name of the strategy.
        seeds: seeds of its finished runs.
        learned: whether its seeds, taken together, say more than can be said without reading (the score
            that the checkpoints are chosen by, one-sided p-value of at most 0.025).
        figures: by key: `accuracy`, `macro_f1`, `forgetting.<probe>`, `train_seconds`,
            `peak_memory_bytes`, `artifact_bytes`, `trainable_parameters`.
        examples_seen: rows read in training, with repetition.
        steps: optimizer steps.
        ties: letters by key, for `accuracy` and each `forgetting.<probe>`: strategies that share a
            letter are not significantly different. None with fewer than three seeds.
        collapsed: the seeds that give nearly every row one label, while others do not. The figures
            include them.
    """

    strategy: str
    seeds: Sequence[int]
    learned: bool
    figures: Mapping[str, Estimate]
    examples_seen: int | None
    steps: int | None
    ties: Mapping[str, str]
    collapsed: Sequence[Collapse] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Two strategies on the same rows or documents: the first minus the second.

    Args:
        key: which figure: `accuracy` or `forgetting.<probe>`.
        first: a strategy.
        second: another.
        mean: over seeds and rows.
        ci95: 95% interval of it, paired.
        p_value: two-sided; None where both finished fewer than three seeds.
        p_adjusted: the same by Holm over all pairs of this figure.
        mcnemar: exact test of each seed's rows, for `accuracy`; by seed.
        significant: whether `p_adjusted` is below 0.05.
        ranked: whether the comparison is a fair one; an unequal pair is shown and not ranked.
        reason: why it is not ranked, or why figures are None.
        detectable: the true difference that these seeds and rows would have shown with a chance of
            80%, at the level that Holm's correction leaves for this pair: 0.05 by the number of
            pairs less those that are significant. None where the pair is significant, not ranked or not
            tested.
        seeds_needed: how many seeds would show a difference as large as `mean`, with the same
            chance at the same level. None where `detectable` is, and where no number of seeds
            shows it; the reason says so.
    """

    key: str
    first: str
    second: str
    mean: float
    ci95: Interval | None
    p_value: float | None
    p_adjusted: float | None
    mcnemar: Mapping[int, McNemar]
    significant: bool
    ranked: bool
    reason: str | None = None
    detectable: float | None = None
    seeds_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Matched:
    """Forgetting of one probe at equal accuracy, along each strategy's path.

    Args:
        probe: name of the probe.
        accuracy: the accuracy at which all are read.
        forgetting: by strategy; `mean` is None and `reason` says "not reached" where a path ends
            below the accuracy.
        differences: of the pairs that reach it.
    """

    probe: str
    accuracy: float
    forgetting: Mapping[str, Estimate]
    differences: Sequence[Difference]


@dataclass(frozen=True, slots=True)
class Front:
    """Strategies that no other beats in accuracy and in `key` at once."""

    key: str
    strategies: Sequence[str]


@dataclass(frozen=True, slots=True)
class AgainstBaseline:
    """A strategy on the rows that the best baseline answered: the strategy minus the baseline.

    Args:
        strategy: name of the strategy.
        baseline: name of the baseline.
        n: rows that both answered; None where the answers of the baseline are not known.
        mean: difference of the accuracies, or of macro F1.
        ci95: 95% interval of it, paired; over rows and seeds with three seeds, else over rows, of
            the mean of these models; None of macro F1, which has a test alone.
        beats: whether the strategy is clearly the better.
        reason: why `ci95` is None, or what it does not speak of.
        metric: `accuracy`; or `macro_f1` where checkpoints are not chosen by accuracy, the strategy
            is not clearly the more accurate, and it is clearly above every baseline in one of the two.
    """

    strategy: str
    baseline: str
    n: int | None
    mean: float
    ci95: Interval | None
    beats: bool
    reason: str | None = None
    metric: Literal["accuracy", "macro_f1"] = "accuracy"


@dataclass(frozen=True, slots=True)
class LeakedRows:
    """Rows of the final score whose text was read in training.

    Args:
        split: the split of the final score.
        n: its rows.
        leaked: those whose text is in train, or in validation where the test is scored.
        left_out: whether no figure of the comparison counts them; False where the run folders,
            written by an earlier version, do not say which rows they are.
        matched: whether forgetting is read at equal accuracy: the points of an earlier version's
            paths count the rows.
    """

    split: str
    n: int
    leaked: int
    left_out: bool = True
    matched: bool = True

    def __str__(self) -> str:
        """Describe the leaked rows in one sentence."""
        if not self.left_out:
            return f"{self.leaked} of {self.n} {self.split} rows were read in training and are counted here, for these run folders do not say which they are."
        if self.leaked == self.n:
            return f"All {self.n} {self.split} rows were read in training, so they say nothing of other rows: there is no accuracy to compare, and none is named. Score rows that were not read in training."
        also = (
            ""
            if self.matched
            else "; forgetting at equal accuracy is not read, for the points of the paths count them"
        )
        return f"{self.leaked} of {self.n} {self.split} rows were read in training and are left out here{also}."


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a comparison, for tables, pages and programs.

    Args:
        answer: which strategy to use, in one sentence.
        held_equal: what the strategies share besides rows and seeds.
        standings: the strategies, most accurate first.
        differences: all pairs of every figure that is compared.
        matched: forgetting at equal accuracy, one entry a probe.
        fronts: the Pareto front of accuracy against each of the other figures.
        baselines: the baselines, lowest first.
        against_baseline: each strategy against the best of them, on the same rows.
        leaked: rows that were read in training, which no figure counts; None where none was.
    """

    answer: str
    held_equal: HeldEqual
    standings: Sequence[Standing]
    differences: Sequence[Difference]
    matched: Sequence[Matched]
    fronts: Sequence[Front]
    baselines: Sequence[Baseline]
    against_baseline: Sequence[AgainstBaseline] = ()
    leaked: LeakedRows | None = None

    def as_json(self) -> dict[str, Any]:
        """Return every field under the keys of `comparison.json`."""
        values = dataclasses.asdict(self)
        del values["baselines"]
        matched = [pair for one in values["matched"] for pair in one["differences"]]
        for pair in (*values["differences"], *matched):
            pair["told_apart"] = pair.pop("significant")
        return values | {"ladder": [one.as_entry() for one in self.baselines]}


_FORGOTTEN = "Forgetting: bits per byte of general text, after minus before; positive is worse."
LEGEND = f"Brackets: 95% intervals, over rows or documents, and over seeds where there are three or more. {_FORGOTTEN}"
_OF_ONE_SEED = "Brackets: 95% intervals over rows or documents, of {}; another seed makes {}."
_TIES = "Ties: strategies that share a letter are not significantly different."
_TWO = "Parentheses: the figure of each of two seeds, which have no interval."
_FORGETTING = "forgetting."


def facts_of(run: Run) -> list[tuple[str, str]]:
    """Return names and values of a run's table: scores, forgetting, costs."""
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
    """Return the legend of a run's table: of one model, or of its folds' models."""
    which = ("the models of these folds", "others") if run.folds else ("this one model", "another")
    return f"{_OF_ONE_SEED.format(*which)} {_FORGOTTEN}"


def _facts_of_folds(run: Run) -> list[tuple[str, str]]:
    """Return the figures of each fold of a cross-validation, and of the test set."""
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
    """Return the legend of a comparison's table: only of what it shows."""
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
    """Yield names and values of a strategy over its seeds."""
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
