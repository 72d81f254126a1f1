"""What a report consists of, before it is a page or a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

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
        svg: the plot, whose colours are the page's.
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
