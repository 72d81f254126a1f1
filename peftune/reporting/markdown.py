"""Render a report as Markdown: the same sentence, tables and findings, plots in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

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

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&])")


def markdown(contents: Contents) -> str:
    """Render a report as Markdown as GitHub reads it; all that comes from data is escaped."""
    parts = [f"# {_escaped(contents.title)}"]
    parts += [f"> **{_escaped(one.lead)}.** {_escaped(one.text)}" for one in contents.alerts]
    parts.append(f"**{_escaped(contents.answer)}**")
    parts += [_escaped(contents.facts)] if contents.facts else []
    for section in contents.sections:
        parts.append(f"## {_escaped(section.title)}")
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
            yield f"*{_escaped(figure.title)}.* {_escaped(figure.description)}"
    elif isinstance(block, Paragraph):
        lead = f"**{_escaped(block.lead)}** " if block.lead else ""
        items = "".join(f"\n- {_escaped(item)}" for item in block.items)
        yield f"{lead}{_escaped(block.text)}" + (f"\n{items}" if items else "")
    elif isinstance(block, Code):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        yield f"{fence}text\n{block.text.rstrip()}\n{fence}"
    else:
        yield f"<details><summary>{html.escape(block.title)}</summary>"
        for inner in block.blocks:
            yield from _rendered(inner)
        yield "</details>"


def _table(table: Table) -> Iterator[str]:
    rule = {"l": "---", "t": "---", "r": "---:"}
    lines = [
        [_escaped(column) or " " for column in table.columns],
        [rule[letter] for letter in table.align],
        *([_cell(cell) for cell in row] for row in table.rows),
    ]
    yield f"**{_escaped(table.caption)}**"
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if table.note:
        yield _escaped(table.note)


def _cell(cell: Cell) -> str:
    detail = f" ({_escaped(cell.detail)})" if cell.detail and cell.text != cell.detail else ""
    mark = f" {_escaped(cell.mark)}" if cell.mark else ""
    badge = f" **{_escaped(cell.badge)}**" if cell.badge else ""
    return f"{_escaped(cell.text)}{mark}{detail}{badge}"


def _escaped(text: str) -> str:
    """Keep text from being read as Markdown or HTML, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
