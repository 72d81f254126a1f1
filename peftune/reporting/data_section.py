"""Sections on data and documents: checks, text lengths, leakage, folds, stages, worst documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from peftune.data.cleaning import CleaningCount
from peftune.experiments.report import Run
from peftune.experiments.run_evidence import Evidence
from peftune.findings import CheckReport, CheckResult
from peftune.findings.finding import LeakedScore, Lengths, Status
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
    Tone,
    title_of,
)
from peftune.reporting.plot_style import DASHES, MUTED, color, drawing, svg_of
from peftune.stats.formats import NOT_MEASURED, between, plain, share, signed
from peftune.tasks.scores import Learning


def length_plot(lengths: Lengths) -> str:
    """Draw the share of texts by length, a line for each split, and where texts are cut."""
    with drawing(3.0) as figure:
        axes = figure.subplots()
        axes.axvline(lengths.max_length, color=MUTED, linewidth=1.2, zorder=1)
        for series, (split, counts) in enumerate(lengths.counts.items()):
            total = max(1, sum(counts))
            axes.stairs(
                [count / total for count in counts],
                lengths.edges,
                color=color(series),
                linestyle=DASHES[series],
                linewidth=1.5,
                label=split,
                zorder=2,
            )
        axes.set_xlabel("tokens")
        axes.set_ylabel("share of texts")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return svg_of(figure, "text-lengths")


_SHOWN = 5


def largest_losses_section(subject: Subject) -> Section:
    """Build, for each probe and strategy, a table of the documents that got worst."""
    blocks: list[Block] = []
    for probe in subject.probes:
        for strategy, items in subject.by_strategy.items():
            known = [item for item in items if probe in item.documents]
            if known:
                table = _documents(strategy, probe, subject.unit(probe), known)
                blocks.append(Fold(table.caption, [table]))
    if blocks:
        why = "The documents of each probe on which a strategy got worst, before and after training. The base is the same for all."
        blocks.insert(0, Paragraph(why))
    return Section("largest-losses", "Documents with the largest losses", blocks)


def _documents(strategy: str, probe: str, unit: str, items: Sequence[Evidence]) -> Table:
    scores = [item.documents[probe] for item in items]
    first = scores[0]
    before = first.before / first.weight
    after = np.mean([one.after / one.weight for one in scores], axis=0)
    change = (before - after) if first.higher_is_better else (after - before)
    order = np.argsort(-change, kind="stable")[:_SHOWN]
    return Table(
        caption=f"{strategy} on {probe}: the {len(order)} of {len(change)} documents that got worst",
        columns=["Text", "Before", "After", "Forgetting"],
        rows=[
            [
                Cell(first.excerpts[index]),
                Cell(plain(float(before[index]))),
                Cell(plain(float(after[index]))),
                Cell(signed(float(change[index]))),
            ]
            for index in order
        ],
        align="trrr",
        cards=True,
        note=f"In {unit}; “after” is averaged over the seeds.",
    )


def stages_section(subject: Subject) -> Section:
    """Build a table for each run that is initialized from another artifact."""
    tables = [_table(run) for run in subject.runs if run.forgetting.stages]
    return Section("stages", "Forgetting by stage", tables)


def folds_section(subject: Subject) -> Section:
    """Build a table for each cross-validation: its folds, all rows, and the test."""
    tables = [_folds(run) for run in subject.runs if run.folds]
    return Section("folds", "Folds", tables)


def _folds(run: Run) -> Table:
    probes = [probe.name for probe in run.forgetting]
    rows = [
        [
            Cell(fold.folder, f"{fold.n:,} rows"),
            Cell(share(fold.accuracy)),
            Cell(share(fold.macro_f1)),
            *(Cell(signed(fold.forgetting[name])) for name in probes),
        ]
        for fold in run.folds
    ]
    learned = run.learning
    rows.append(
        [
            Cell("all rows", f"{learned.n:,} rows"),
            *_scores(learned),
            *(Cell(signed(p.forgetting), between(p.ci95, signed)) for p in run.forgetting),
        ]
    )
    if run.test is not None:
        title = Cell("test", f"{run.test.n:,} rows, logits of the folds averaged")
        rows.append([title, *_scores(run.test), *(Cell(NOT_MEASURED) for _ in probes)])
    return Table(
        title_of(run),
        ["Fold", "Accuracy", "Macro F1", *(f"{p.name}, {p.unit}" for p in run.forgetting)],
        rows,
        "lrr" + "r" * len(probes),
        "Each fold is scored by the run that did not see it. Below a number: its 95% interval over rows or documents, of that one model.",
    )


def _scores(learning: Learning) -> list[Cell]:
    return [
        Cell(share(learning.accuracy), between(learning.ci95["accuracy"], share)),
        Cell(share(learning.macro_f1), between(learning.ci95["macro_f1"], share)),
    ]


def _table(run: Run) -> Table:
    probes = [probe.name for probe in run.forgetting]
    rows = [
        [
            Cell(stage.name, stage.task),
            *(
                Cell(signed(stage.forgetting[name]), between(stage.ci95[name], signed))
                for name in probes
            ),
        ]
        for stage in run.forgetting.stages
    ]
    total = [Cell("all together"), *(Cell(signed(p.forgetting)) for p in run.forgetting)]
    return Table(
        title_of(run),
        ["Stage", *(f"{probe.name}, {probe.unit}" for probe in run.forgetting)],
        [*rows, total],
        "l" + "r" * len(probes),
        "After each stage, minus after the one before; positive is worse. Below a number: its 95% interval over documents, of this one model.",
    )


_TONES: dict[Status, Tone] = {"fail": "error", "warn": "warning"}


def data_section(subject: Subject) -> Section:
    """Build the results of the data checks, which all runs share."""
    checks = subject.runs[0].checks if subject.runs else None
    blocks = [] if checks is None or not checks.results else list(_blocks(checks))
    return Section("data", "The data", blocks)


def _blocks(checks: CheckReport) -> Iterator[Block]:
    for status in _TONES:
        for result in checks.with_status(status):
            yield _paragraph(result)
    passed = len(checks.with_status("pass"))
    yield Paragraph(f"{passed} of {len(checks.results)} checks found nothing.")
    if checks.leaked_score is not None:
        yield _leaked(checks.leaked_score)
    if checks.cleaned:
        yield _cleaned(checks.cleaned)
    if checks.lengths is not None:
        yield Figures([_lengths(checks.lengths)])


def _paragraph(result: CheckResult) -> Paragraph:
    tone = _TONES[result.status]
    lead = f"{tone.capitalize()}: {result.code}."
    return Paragraph(f"{result.message} {result.advice}", lead, tone)


def _leaked(score: LeakedScore) -> Table:
    rows = [
        [Cell(name), Cell(_number(value)), Cell(_number(score.metrics_without.get(name)))]
        for name, value in score.metrics.items()
    ]
    caption = f"The score with and without the {score.leaked} of {score.n} {score.split} rows whose text was read in training"
    return Table(caption, ["Metric", "All rows", "Without them"], rows, "lrr")


def _number(value: float | None) -> str:
    return NOT_MEASURED if value is None else plain(value)


def _cleaned(counts: Sequence[CleaningCount]) -> Table:
    rows = [
        [
            Cell(count.step),
            Cell(count.split),
            Cell(f"{count.changed:,}"),
            Cell(f"{count.dropped:,}"),
        ]
        for count in counts
    ]
    return Table(
        "Rows that cleaning touched", ["Step", "Split", "Changed", "Left out"], rows, "llrr"
    )


def _lengths(lengths: Lengths) -> Figure:
    described = [
        f"{split}: half of the texts have at most {lengths.median[split]:g} tokens, the longest {lengths.longest[split]:,}, and {lengths.truncated[split]:,} are cut at {lengths.max_length}"
        for split in lengths.counts
    ]
    bars = [
        f"{low} to {high}" for low, high in zip(lengths.edges, lengths.edges[1:], strict=False)
    ]
    rows = [
        [Cell(bar), *(Cell(f"{counts[place]:,}") for counts in lengths.counts.values())]
        for place, bar in enumerate(bars)
    ]
    columns = ["Tokens", *lengths.counts]
    return Figure(
        length_plot(lengths),
        "Length of the texts",
        f"Share of texts by length in tokens; the line is model.max_length. {'; '.join(described)}.",
        Table(
            "Texts by length; the last bar also counts longer ones",
            columns,
            rows,
            "l" + "r" * len(lengths.counts),
        ),
    )
