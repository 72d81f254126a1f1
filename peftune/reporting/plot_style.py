"""How every plot looks, and how it becomes a part of a page.

A plot is drawn in the colors below; in the page each of them is a variable of the style sheet, so
that one drawing serves light and dark screens and paper.
"""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peftune.errors import visible
from peftune.experiments.plots import write_as_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox


INK, MUTED, GRID, PAPER = "#101112", "#101113", "#101114", "#101115"
SERIES = ("#101121", "#101122", "#101123", "#101124", "#101125", "#101126")
"""Stand-ins: each names a variable of the style sheet, not a color that anybody sees."""

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
    """Return the color of a strategy."""
    return SERIES[series % len(SERIES)]


def marker(series: int) -> str:
    """Return the marker of a strategy, so that nothing rests on color alone."""
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


Named = tuple[str, float, float]
"""A name with the x and y of what it names."""

_PLACES = tuple(
    (side * reach, rise, "left" if side > 0 else "right")
    for reach in (9, 14)
    for rise in (7, -15, 20, -28, 33, -41)
    for side in (1, -1)
)
_CLEARANCE = 6.0
_LINE_LETTERS = 20
_LINE = 0.075
"""Height of a line of letters as a share of the plot's."""


def in_lines(name: str) -> str:
    """Break a long name, for on one line it would leave no room for what is drawn."""
    shown = visible(name)
    return "\n".join(textwrap.wrap(shown, _LINE_LETTERS)) or shown


def beside(figure: Figure, axes: Axes, names: Sequence[Named]) -> None:
    """Write each name near its point, clear of the other points and names if there is a way.

    Args:
        figure: the figure, drawn otherwise.
        axes: what the points lie in.
        names: names with their points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout settles, so that places on the canvas mean something
    points = [axes.transData.transform((x, y)) for _, x, y in names]
    taken = [
        Bbox.from_bounds(x - _CLEARANCE, y - _CLEARANCE, 2 * _CLEARANCE, 2 * _CLEARANCE)
        for x, y in points
    ]
    for name, x, y in names:
        options: list[tuple[float, int, Annotation, Bbox]] = []
        for right, up, side in _PLACES:
            text = axes.annotate(
                in_lines(name),
                (x, y),
                xytext=(right, up),
                textcoords="offset points",
                ha=side,
                color=INK,
                zorder=5,
            )
            text.set_in_layout(False)
            box = text.get_window_extent(canvas.get_renderer())
            options.append((_covered(box, taken, axes.bbox), len(options), text, box))
        *_, best, box = min(options, key=lambda option: option[:2])
        for *_, text, _ in options:
            if text is not best:
                text.remove()
        taken.append(box)


def _covered(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Return how much of what lies there already a name would hide or leave."""
    from matplotlib.transforms import Bbox

    def area(common: Bbox | None) -> float:
        return 0.0 if common is None else float(common.width * common.height)

    outside = float(box.width * box.height) - area(Bbox.intersection(box, frame))
    return outside + sum(area(Bbox.intersection(box, other)) for other in taken)


def end_labels(axes: Axes, ends: Sequence[tuple[str, float]]) -> None:
    """Write each name once, right of the mean end of its curves, pushed apart where they meet."""
    low, high = axes.get_ylim()
    found: dict[str, list[float]] = {}
    for label, y in ends:
        found.setdefault(label, []).append(y)
    wanted = sorted((sum(ys) / len(ys), in_lines(label)) for label, ys in found.items())
    heights = [_LINE * (high - low) * (1 + label.count("\n")) for _, label in wanted]
    places = _pushed_apart([y for y, _ in wanted], heights)
    for place, (_, label) in zip(places, wanted, strict=True):
        axes.annotate(
            label,
            (1.0, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            annotation_clip=False,
        )


def _pushed_apart(values: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Return the middles of things of these heights that do not overlap, about the same middle."""
    places = list(values)
    for index in range(1, len(places)):
        gap = (heights[index - 1] + heights[index]) / 2
        places[index] = max(places[index], places[index - 1] + gap)
    shift = (sum(places) - sum(values)) / len(places) if places else 0.0
    return [place - shift for place in places]
