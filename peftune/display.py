"""How results are shown: as text in a terminal, as JSON, as HTML in a notebook, as a table of pandas."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftune.errors import visible, visible_lines

if TYPE_CHECKING:
    import pandas as pd

Block = str | Sequence[Mapping[str, object]]
"""A sentence, or the rows of a table, which have the same keys."""

_MOST_ROWS = 30
"""Rows of a table that fit on a screen."""


class Displayed:
    """A result that is read in a terminal and in a notebook, from the same blocks.

    What others wrote in a result, such as names of labels, does nothing to a terminal or a page.
    """

    __slots__ = ()

    def _blocks(self) -> Iterable[Block]:
        """Return what is shown, in order."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the result as text for one screen."""
        return "\n".join(_text(block) for block in self._blocks() if block)

    def _repr_html_(self) -> str:
        """Return the result as HTML for a notebook."""
        return "\n".join(_html(block) for block in self._blocks() if block)


def _text(block: Block) -> str:
    return visible_lines(block) if isinstance(block, str) else text_table(block)


def _html(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{'<br>'.join(map(_escaped, block.splitlines()))}</p>"
    return _html_table(block)


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Lay rows of the same keys out in columns, with the keys as headings."""
    if not rows:
        return ""
    table: list[Sequence[object]] = [list(rows[0])]
    table += [list(row.values()) for row in rows[:_MOST_ROWS]]
    shown = [[visible(str(cell)) for cell in line] for line in table]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in shown
    ]
    return "\n".join([*lines, *_left_out(rows)])


def _html_table(rows: Sequence[Mapping[str, object]]) -> str:
    head = "".join(f"<th>{_escaped(key)}</th>" for key in rows[0])
    lines = (
        f"<tr>{''.join(f'<td>{_escaped(value)}</td>' for value in row.values())}</tr>"
        for row in rows[:_MOST_ROWS]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return "\n".join([table, *(f"<p>{line}</p>" for line in _left_out(rows))])


def _left_out(rows: Sequence[Mapping[str, object]]) -> list[str]:
    more = len(rows) - _MOST_ROWS
    return [f"… and {more} more rows"] if more > 0 else []


def _escaped(value: object) -> str:
    return html.escape(visible(str(value)))


def data_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table of pandas."""
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows])


def json_text(values: Any, *, encoding: str, indent: int | None = None) -> str:  # noqa: ANN401 - anything JSON holds
    """Write values as JSON in the characters of an encoding.

    What the encoding lacks, and what acts on a terminal or is not seen, is escaped, which every
    reader of JSON reads as the same text.
    """
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(values, indent=indent)
    return "\n".join(map(_escaped_in_json, text.split("\n")))


def _escaped_in_json(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line)
