"""How every plot looks, and how it becomes a part of a page.

A plot is drawn in the colours below; in the page each of them is a variable of the style sheet, so
that one drawing serves light and dark screens and paper.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from peftune.runs.strength_plot import write_as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#101112", "#101113", "#101114", "#101115"
SERIES = ("#101121", "#101122", "#101123", "#101124", "#101125", "#101126")
"""Stand-ins: each names a variable of the style sheet, not a colour that anybody sees."""

MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
WIDTH = 5.0
"""Inches; 360 units of the drawing, about the width of a phone, so that letters stay readable."""

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--rule",
    PAPER: "--paper",
    **{color: f"--series-{index}" for index, color in enumerate(SERIES)},
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
}


def color(series: int) -> str:
    """Return the colour of a strategy."""
    return SERIES[series % len(SERIES)]


def marker(series: int) -> str:
    """Return the marker of a strategy, so that nothing rests on colour alone."""
    return MARKERS[series % len(MARKERS)]


@contextlib.contextmanager
def drawing(height: float = 3.4) -> Iterator[Figure]:
    """Give an empty figure in the report's style; nothing outlives the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the letters that the layout's font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def svg_of(figure: Figure, name: str) -> str:
    """Return a figure as an `<svg>` to stand in a page: the same bytes for the same data.

    Args:
        figure: drawn within `drawing`.
        name: unlike that of every other plot of the page; its ids begin with it.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        write_as_text(figure)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg)[^>]*?(viewBox="[^"]+")[^>]*>', r"\1 \2>", text, count=1)
    return _in_page_colors(_with_own_ids(text, name)).strip()


def _with_own_ids(text: str, name: str) -> str:
    """Keep the ids that something refers to, made unlike those of other plots."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    return re.sub(r"url\(#", f"url(#{name}-", text)


def _in_page_colors(text: str) -> str:
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    return text
