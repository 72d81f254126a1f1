"""Render a report as Markdown: the same sentence, tables and findings, plots in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from peftune.errors import visible, visible_lines
from peftune.escaping import markdown_text
from peftune.reporting.contents import (
    Block,
    Cell,
    Code,
    Contents,
    Figures,
    Paragraph,
    Table,
    Tables,
)


def markdown(contents: Contents) -> str:
    """Render a report as Markdown as GitHub reads it; all that comes from data is escaped."""
    parts = [f"# {markdown_text(contents.title)}"]
    parts += [
        f"> **{markdown_text(one.lead)}.** {markdown_text(one.text)}" for one in contents.alerts
    ]
    parts.append(f"**{markdown_text(contents.answer)}**")
    parts += [markdown_text(contents.facts)] if contents.facts else []
    for section in contents.sections:
        parts.append(f"## {markdown_text(section.title)}")
        parts += [part for block in section.blocks for part in _rendered(block)]
    return "\n\n".join(parts) + "\n"


def _rendered(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Tables):
        for table in block.tables:
            yield from _table(table)
    elif isinstance(block, Figures):
        for figure in block.figures:
            yield f"*{markdown_text(figure.title)}.* {markdown_text(figure.description)}"
    elif isinstance(block, Paragraph):
        lead = f"**{markdown_text(block.lead)}** " if block.lead else ""
        items = "".join(f"\n- {markdown_text(item)}" for item in block.items)
        yield f"{lead}{markdown_text(block.text)}" + (f"\n{items}" if items else "")
    elif isinstance(block, Code):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        yield f"{fence}text\n{visible_lines(block.text).rstrip()}\n{fence}"
    else:
        yield f"<details><summary>{html.escape(visible(block.title))}</summary>"
        for inner in block.blocks:
            yield from _rendered(inner)
        yield "</details>"


def _table(table: Table) -> Iterator[str]:
    rule = {"l": "---", "t": "---", "r": "---:"}
    lines = [
        [markdown_text(column) or " " for column in table.columns],
        [rule[letter] for letter in table.align],
        *([_cell(cell) for cell in row] for row in table.rows),
    ]
    yield f"**{markdown_text(table.caption)}**"
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if table.note:
        yield markdown_text(table.note)


def _cell(cell: Cell) -> str:
    detail = f" ({markdown_text(cell.detail)})" if cell.detail and cell.text != cell.detail else ""
    mark = f" {markdown_text(cell.mark)}" if cell.mark else ""
    badge = f" **{markdown_text(cell.badge)}**" if cell.badge else ""
    return f"{markdown_text(cell.text)}{mark}{detail}{badge}"
