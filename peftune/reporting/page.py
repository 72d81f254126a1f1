"""Render a report as one HTML page that needs no network and no script."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from peftune._version import __version__
from peftune.errors import visible, visible_lines
from peftune.reporting.contents import Code, Contents, Figures, Fold, Paragraph, Table, Tables
from peftune.reporting.plot_style import MARKERS, SERIES

_TEMPLATE, _STYLES = "report.html.j2", "report.css"
_WORD_ENDS = re.compile(r"(?<=[_/])(?=\w)")
_KINDS = {
    Table: "table",
    Tables: "tables",
    Figures: "figures",
    Paragraph: "paragraph",
    Code: "code",
    Fold: "fold",
}


def page(contents: Contents) -> str:
    """Render a report as HTML; all that comes from data is escaped."""
    environment = Environment(
        loader=PackageLoader("peftune.reporting"),
        autoescape=True,
        finalize=_seen,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    environment.tests["kind"] = lambda block, kind: _KINDS[type(block)] == kind
    numbers = count(1)
    return environment.get_template(_TEMPLATE).render(
        contents=contents,
        styles=Markup(styles()),  # noqa: S704 - our own file
        next_id=lambda: f"n{next(numbers)}",
        drawn=Markup,  # SVG from matplotlib, which escapes what it writes
        colors=len(SERIES),
        markers=len(MARKERS),
        version=__version__,
    )


def _seen(value: object) -> object:
    """Spell out what is not seen in whatever the template writes, but for markup of our own."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible_lines(value)


def breakable(text: str) -> Markup:
    """Escape a name, and let a line end where one of its words does: `card_<wbr>payment`."""
    return Markup("<wbr>").join(escape(part) for part in _WORD_ENDS.split(visible(text)))


def styles() -> str:
    """Return the style sheet of the page."""
    return (files("peftune.reporting") / "templates" / _STYLES).read_text(encoding="utf-8")
