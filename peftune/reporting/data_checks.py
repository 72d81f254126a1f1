"""What the checks of the data found, how long the texts are, and what leakage did to the score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftune.checks import CheckReport, CheckResult
from peftune.checks.length_counts import Lengths
from peftune.checks.result import LeakedScore, Status
from peftune.data.clean import CleaningCount
from peftune.reporting.contents import (
    Block,
    Cell,
    Figure,
    Figures,
    Paragraph,
    Section,
    Table,
    Tone,
)
from peftune.reporting.length_plot import length_plot
from peftune.reporting.numbers import NOT_MEASURED, plain
from peftune.reporting.subject import Subject

_TONES: dict[Status, Tone] = {"fail": "error", "warn": "warning"}


def data_section(subject: Subject) -> Section:
    """Build what the runs were told of their data; all of them have the same."""
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
    said = [
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
        f"Share of texts by length in tokens; the line is model.max_length. {'; '.join(said)}.",
        Table(
            "Texts by length; the last bar also counts longer ones",
            columns,
            rows,
            "l" + "r" * len(lengths.counts),
        ),
    )
