"""Sections of a comparison: strategies and their pairs, forgetting at equal accuracy, baselines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from peftune.baselines.baseline import Baseline
from peftune.experiments.compare.clean_rows import baselines_of
from peftune.experiments.compare.summary import (
    AgainstBaseline,
    Difference,
    Matched,
    Standing,
    Summary,
    each_of_two,
)
from peftune.reporting.contents import (
    Block,
    Cell,
    Figure,
    Figures,
    Fold,
    Paragraph,
    Section,
    Subject,
    Table,
    estimate,
    form_of,
    title_of,
)
from peftune.reporting.overview import runs_table
from peftune.reporting.plots import Level, levels
from peftune.stats.crossed import FEWEST_SEEDS
from peftune.stats.formats import (
    NOT_MEASURED,
    between,
    count,
    listed,
    plain,
    probability,
    share,
    signed,
)

_HELD_EQUAL = {
    "examples_seen": "Every strategy read the same number of training rows.",
    "steps": "Every strategy took the same number of optimizer steps.",
    "tuned": "Every strategy runs with the hyper-parameters that its own search found, at an equal budget of trials.",
}
_COSTS = {
    "train_seconds": "Training time",
    "peak_memory_bytes": "Peak memory",
    "artifact_bytes": "File size",
    "trainable_parameters": "Trainable",
}


def strategies_section(subject: Subject) -> Section:
    """Build the main table, with what did not finish and how to read it."""
    blocks: list[Block] = []
    summary = subject.summary
    if summary is not None and summary.standings:
        blocks += [
            _table(subject, summary),
            Paragraph(
                f"{_HELD_EQUAL[summary.held_equal]} All have the same training rows and evaluation rows."
                + (f" {summary.leaked}" if summary.leaked else "")
            ),
        ]
        if summary.differences:
            blocks.append(
                Fold(
                    "Every pair of strategies",
                    [_pairs(summary.differences, "Every pair of strategies")],
                )
            )
        blocks.append(Fold("Each run by itself", runs_table(subject.runs)))
    blocks += [
        Paragraph(failure.message, f"{failure.strategy}, seed {failure.seed} failed.", "error")
        for failure in subject.failures
    ]
    return Section("strategies", "Strategies", blocks)


def _table(subject: Subject, summary: Summary) -> Table:
    matched = {one.probe: one for one in summary.matched}
    columns, align = ["Strategy", "Accuracy"], "lr"
    for probe in subject.probes:
        columns.append(f"Forgetting, {probe}")
        if probe in matched:
            columns.append(f"At accuracy {form_of('accuracy')(matched[probe].accuracy)}")
    columns += _COSTS.values()
    return Table(
        caption="Strategies, most accurate first",
        columns=columns,
        rows=[list(_row(subject, standing, matched)) for standing in summary.standings],
        align=align + "r" * (len(columns) - len(align)),
        note=_reading(subject, summary),
        cards=True,
    )


def _row(subject: Subject, standing: Standing, matched: dict[str, Matched]) -> Iterator[Cell]:
    seeds = "seed" if len(standing.seeds) == 1 else "seeds"
    yield Cell(
        standing.strategy,
        f"{len(standing.seeds)} {seeds}",
        badge="" if standing.learned else "nothing learned",
        series=subject.series(standing.strategy),
    )
    yield _figure(standing, "accuracy")
    for probe in subject.probes:
        yield _figure(standing, f"forgetting.{probe}")
        if probe in matched:
            found = matched[probe].forgetting.get(standing.strategy)
            yield Cell(*estimate(found, f"forgetting.{probe}"))
    for key in _COSTS:
        yield _figure(standing, key)


def _figure(standing: Standing, key: str) -> Cell:
    return Cell(*estimate(standing.figures.get(key), key), mark=standing.ties.get(key, ""))


def _reading(subject: Subject, summary: Summary) -> str:
    parts = list(_below(max(len(standing.seeds) for standing in summary.standings), summary))
    if any(standing.ties for standing in summary.standings):
        parts.append(
            "In a column, strategies that share a letter are not significantly different."
        )
    if subject.probes:
        units = dict.fromkeys(subject.unit(probe) for probe in subject.probes)
        parts.append(
            f"Forgetting is in {listed(list(units))}, after training minus before: positive is worse."
        )
    if summary.matched:
        parts.append(
            "“At accuracy …” is forgetting where each strategy's path crosses that accuracy."
        )
    return " ".join(parts)


def _below(seeds: int, summary: Summary) -> Iterator[str]:
    """Say what stands below a figure, by the most seeds that a strategy has."""
    two = any(each_of_two(one) for of in summary.standings for one in of.figures.values())
    if seeds == 1:
        yield "One seed each; below the figures 95% intervals for other rows or documents, of this seed alone. No difference is tested: that takes three seeds."
    elif seeds < FEWEST_SEEDS:
        yield "Means over two seeds; below them the figure of each. No difference is tested: that takes three seeds."
    else:
        yield "Means over seeds; below them 95% intervals for another seed and other rows or documents."
        if two:
            yield "Where only two seeds finished, the figure of each stands below, for two have no interval."


def _pairs(differences: Sequence[Difference], caption: str) -> Table:
    return Table(
        caption=caption,
        columns=[
            "Figure",
            "First",
            "Second",
            "Difference",
            "p, by Holm",
            "Significantly different",
            "Would be seen",
        ],
        rows=[_pair(one) for one in differences],
        align="lllrrlr",
        note="A difference is the first minus the second, on the same rows or documents. p is two-sided and adjusted for the number of pairs. An unequal pair is shown and not ranked. “Would be seen”, where no difference was seen: the true difference that as many seeds and rows show 4 times in 5, if they spread as these did, and how many seeds would show the one that was measured.",
        cards=True,
    )


def _pair(one: Difference) -> list[Cell]:
    form = form_of(f"forgetting.{one.key}")  # a difference has a sign, whatever the figure
    tested = "not tested" if one.p_value is None else "yes" if one.significant else "no"
    word = tested if one.ranked else "not ranked"
    return [
        Cell(one.key.replace("forgetting.", "forgetting, ")),
        Cell(one.first),
        Cell(one.second),
        Cell(form(one.mean), between(one.ci95, form)),
        Cell(probability(one.p_adjusted)),
        Cell(word, one.reason or ""),
        Cell(*_would_be_seen(one)),
    ]


def _would_be_seen(one: Difference) -> tuple[str, str]:
    """Write what would have been seen, and below it the seeds that would show what was."""
    if one.detectable is None:
        return NOT_MEASURED, ""
    form = form_of("accuracy") if one.key == "accuracy" else plain
    if one.seeds_needed is None:
        return form(one.detectable), ""
    return form(one.detectable), f"{one.seeds_needed:,} seeds for {form(abs(one.mean))}"


def matched_section(subject: Subject) -> Section:
    """Build the tables of forgetting at equal accuracy, one a probe."""
    blocks: list[Block] = []
    for one in () if subject.summary is None else subject.summary.matched:
        accuracy = form_of("accuracy")(one.accuracy)
        blocks.append(
            Table(
                caption=f"Forgetting on {one.probe} at accuracy {accuracy}, {subject.unit(one.probe)}",
                columns=["Strategy", "Forgetting"],
                rows=[
                    [Cell(strategy, series=subject.series(strategy)), _reached(found)]
                    for strategy, found in (
                        (name, estimate(value, f"forgetting.{one.probe}"))
                        for name, value in one.forgetting.items()
                    )
                ],
                align="lr",
            )
        )
        if one.differences:
            title = f"Pairs at accuracy {accuracy}, {one.probe}"
            blocks.append(Fold(title, [_pairs(one.differences, title)]))
    if blocks:
        why = "A strategy that learns less also forgets less. Here each is read at the same accuracy, where its path from the base to the tuned model crosses it."
        blocks.insert(0, Paragraph(why))
    return Section("matched", "Forgetting at equal accuracy", blocks)


def _reached(found: tuple[str, str]) -> Cell:
    """A path that ends below the accuracy says so where the number would stand."""
    text, detail = found
    return Cell(detail) if text == NOT_MEASURED and detail else Cell(text, detail)


class _Entry(NamedTuple):
    """A line of the table, and what the plot draws of it; nothing where nothing was measured."""

    row: list[Cell]
    level: Level | None


def baselines_section(subject: Subject) -> Section:
    """Build the plot and the table of accuracies, baselines and strategies together, in one order."""
    baselines = _baselines(subject)
    if not baselines:
        return Section("baselines", "Against the baselines", [])
    entries = [*map(_baseline, baselines), *_strategies(subject)]
    entries.sort(key=lambda entry: -entry.level.value if entry.level else math.inf)
    shown = [entry.level for entry in entries if entry.level]
    order = ", ".join(f"{level.label} {share(level.value)}" for level in shown)
    table = Table(
        caption="Baselines and strategies on the same rows, most accurate first",
        columns=["", "Accuracy", "Macro F1"],
        rows=[entry.row for entry in entries],
        align="lrr",
        note="Below an accuracy: its 95% interval over rows.",
    )
    figure = Figure(
        levels(shown[::-1], name="baselines", x_label=_axis(shown)),
        "Accuracy of baselines and strategies",
        f"From the highest: {order}.",
        wide=True,
    )
    why = "What is gained over answers that cost little: each baseline is fitted to the same training rows and scored on the same rows as the strategies."
    blocks: list[Block] = [Paragraph(why), Figures([figure]), table]
    if subject.summary is not None and subject.summary.against_baseline:
        blocks.append(_against(subject, subject.summary.against_baseline))
    return Section("baselines", "Against the baselines", blocks)


def _against(subject: Subject, found: Sequence[AgainstBaseline]) -> Table:
    """Give the difference of each strategy to the best baseline, by which it beats it or not."""
    title = next(
        baseline.title for baseline in _baselines(subject) if baseline.name == found[0].baseline
    )
    return Table(
        caption=f"Each strategy against the best baseline, {title}",
        columns=["Strategy", "Difference in accuracy", "Rows", "Beats it"],
        rows=[
            [
                Cell(one.strategy, series=subject.series(one.strategy)),
                Cell(signed(one.mean), between(one.ci95, signed) or one.reason or ""),
                Cell(count(one.n)),
                Cell("yes" if one.beats else "not clearly"),
            ]
            for one in found
        ],
        align="lrrl",
        note="The strategy minus the baseline, row by row on the rows that both answered; below it the 95% interval. A strategy beats the baseline if its interval lies above zero. With fewer than three seeds it speaks of these models on other rows.",
    )


def _axis(shown: Sequence[Level]) -> str:
    has_lines = any(level.interval is not None for level in shown)
    return "accuracy, lines are 95% intervals" if has_lines else "accuracy"


def _baselines(subject: Subject) -> Sequence[Baseline]:
    """Return the baselines of the comparison, or of a run that stands alone."""
    if subject.summary is not None:
        return subject.summary.baselines
    return baselines_of(subject.evidence[0]) if subject.evidence else ()


def _baseline(baseline: Baseline) -> _Entry:
    row = [
        Cell(baseline.title, "; ".join(f"{key} {value}" for key, value in _told(baseline))),
        Cell(share(baseline.accuracy), baseline.reason or between(baseline.ci95, share)),
        Cell(share(baseline.macro_f1)),
    ]
    if baseline.accuracy is None:
        return _Entry(row, None)
    return _Entry(row, Level(baseline.title, baseline.accuracy, baseline.ci95, None))


def _strategies(subject: Subject) -> Iterator[_Entry]:
    if subject.summary is None:
        for run in subject.runs:
            learning, series = run.learning, subject.series(run.run.strategy)
            if learning.accuracy is not None:
                interval, name = learning.ci95["accuracy"], title_of(run)
                row = [
                    Cell(name, series=series),
                    Cell(share(learning.accuracy), between(interval, share)),
                    Cell(share(learning.macro_f1)),
                ]
                yield _Entry(row, Level(name, learning.accuracy, interval, series))
        return
    for standing in subject.summary.standings:
        found, name = standing.figures["accuracy"], standing.strategy
        if found.mean is not None:
            series = subject.series(name)
            macro_f1 = standing.figures.get("macro_f1")
            row = [
                Cell(name, series=series),
                Cell(*estimate(found, "accuracy")),
                Cell(share(macro_f1.mean if macro_f1 else None)),
            ]
            yield _Entry(row, Level(name, found.mean, found.ci95, series))


def _told(baseline: Baseline) -> Iterator[tuple[str, str]]:
    """Give the details that fit into a line."""
    for key, value in baseline.details.items():
        if isinstance(value, str | int | float) and len(str(value)) <= 40:  # noqa: PLR2004 - a line
            yield key.replace("_", " "), str(value)
