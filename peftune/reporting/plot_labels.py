"""Names written beside what they name, where they cover nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftune.errors import visible
from peftune.reporting.plot_style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

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
