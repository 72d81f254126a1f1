"""What a report consists of, before it is a page or a Markdown file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from peftune.experiments.compare.executors import Failure
from peftune.experiments.compare.summary import Estimate, Summary, each_of_two
from peftune.experiments.report import Run
from peftune.experiments.run_evidence import Evidence
from peftune.findings.finding import Finding
from peftune.stats.formats import (
    NOT_MEASURED,
    Form,
    between,
    count,
    plain,
    seconds,
    share,
    signed,
    size,
)

Tone: TypeAlias = Literal["plain", "note", "warning", "error"]

UPRIGHT_FROM = 5
"""Columns of a matrix, from which on headings that lie flat would make it too wide."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Args:
        text: what it says.
        detail: said smaller below it, such as an interval.
        mark: a short word beside it, such as the letters of a tie.
        badge: a warning about it in two or three words, set off from the rest.
        series: number of the strategy whose marker stands before it.
        share: how strongly it is shaded, 0 to 1.
    """

    text: str
    detail: str = ""
    mark: str = ""
    badge: str = ""
    series: int | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of each row is its heading.

    Args:
        caption: what it shows, and in which unit.
        columns: headings.
        rows: as many cells each as there are columns.
        align: one letter a column: `l` for words, `r` for numbers, `t` for long text.
        note: how to read it.
        cards: whether a row is read for itself, and so becomes a card where the screen is narrow;
            other tables scroll in their own box.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    align: str
    note: str = ""
    cards: bool = False

    @property
    def upright(self) -> bool:
        """Whether its headings stand upright, for it is a matrix of many columns."""
        shaded = any(cell.share is not None for row in self.rows for cell in row)
        return shaded and len(self.columns) > UPRIGHT_FROM


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its words.

    Args:
        svg: the plot, whose colors are the page's.
        title: what it is.
        description: what it shows, for who does not see it.
        numbers: the same as a table.
        wide: whether it has a line of its own.
    """

    svg: str
    title: str
    description: str
    numbers: Table | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """Plots that belong together, side by side where there is room."""

    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables that belong together, side by side where there is room.

    Args:
        tables: the tables.
        least: width that each needs, in rem; below it they stand one under another.
    """

    tables: Sequence[Table]
    least: float = 19.0


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A few sentences of prose.

    Args:
        text: the sentences.
        lead: a word or two that stand out before them.
        tone: how urgent it is.
        items: said below, a line each.
    """

    text: str
    lead: str = ""
    tone: Tone = "plain"
    items: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Code:
    """Text to copy as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Fold:
    """A long part that opens when it is asked for."""

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Table | Tables | Figures | Paragraph | Code | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the report.

    Args:
        name: its anchor.
        title: its heading.
        blocks: what it holds, in order.
    """

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Contents:
    """A whole report.

    Args:
        title: what was run or compared.
        facts: base, rows and seeds, in a line.
        answer: the verdict in one sentence.
        sections: the rest, in order; those without blocks are left out.
        alerts: what has to be known before anything else is read; their leads are badges.
    """

    title: str
    facts: str
    answer: str
    sections: Sequence[Section]
    alerts: Sequence[Paragraph] = ()


@dataclass(frozen=True)
class Subject:
    """A summary, if there is one, with the runs that it rests on.

    Args:
        summary: what the comparison says; None for runs that are only shown.
        evidence: the finished runs.
        failures: the runs that did not finish.
        findings: what was found in the comparison as a whole; those of single runs are theirs.
    """

    summary: Summary | None
    evidence: Sequence[Evidence]
    failures: Sequence[Failure]
    findings: Sequence[Finding] = ()

    @cached_property
    def strategies(self) -> Sequence[str]:
        """Names of the strategies, in the order of the summary."""
        first = [] if self.summary is None else [s.strategy for s in self.summary.standings]
        return tuple(dict.fromkeys([*first, *(run.run.strategy for run in self.runs)]))

    @cached_property
    def runs(self) -> Sequence[Run]:
        """The reports of the finished runs."""
        return tuple(item.run for item in self.evidence)

    @cached_property
    def by_strategy(self) -> Mapping[str, Sequence[Evidence]]:
        """The runs of each strategy that has any, by seed."""
        grouped = {
            strategy: sorted(
                (item for item in self.evidence if item.run.run.strategy == strategy),
                key=lambda item: item.run.run.seed,
            )
            for strategy in self.strategies
        }
        return {strategy: items for strategy, items in grouped.items() if items}

    @cached_property
    def probes(self) -> Sequence[str]:
        """Names of the probes, in the order of the recipe."""
        return tuple(dict.fromkeys(probe.name for run in self.runs for probe in run.forgetting))

    def series(self, strategy: str) -> int:
        """Return the number of a strategy, which picks its color and marker."""
        return self.strategies.index(strategy)

    def unit(self, probe: str) -> str:
        """Return the unit of a probe."""
        return next(
            result.unit for run in self.runs for result in run.forgetting if result.name == probe
        )


def title_of(run: Run) -> str:
    """Name a run: `lora, seed 0`."""
    return f"{run.run.strategy}, seed {run.run.seed}"


_FORMS = {
    "accuracy": share,
    "macro_f1": share,
    "train_seconds": seconds,
    "peak_memory_bytes": size,
    "artifact_bytes": size,
    "trainable_parameters": count,
}


def form_of(key: str) -> Form:
    """Return how a figure of a summary is written."""
    return signed if key.startswith("forgetting.") else _FORMS.get(key, plain)


def estimate(value: Estimate | None, key: str) -> tuple[str, str]:
    """Write an estimate and what stands below it: its interval, each of two seeds, or a reason."""
    if value is None:
        return NOT_MEASURED, ""
    form = form_of(key)
    if value.mean is None:
        return NOT_MEASURED, value.reason or ""
    if two := each_of_two(value):
        shown = [form(one) for one in two]
        return form(value.mean), "both seeds" if len(set(shown)) == 1 else ", ".join(shown)
    why = "" if len(value.values) == 1 else value.reason or ""  # one seed is said once, beside it
    return form(value.mean), between(value.ci95, form) or why
