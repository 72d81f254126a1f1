"""How long the texts are, beside the length at which they are cut."""

from __future__ import annotations

from peftune.checks.length_counts import Lengths
from peftune.reporting.plot_style import DASHES, MUTED, color, drawing, svg_of


def length_plot(lengths: Lengths) -> str:
    """Draw the share of texts by length, a line for each split, and where texts are cut."""
    with drawing(3.0) as figure:
        axes = figure.subplots()
        axes.axvline(lengths.max_length, color=MUTED, linewidth=1.2, zorder=1)
        for series, (split, counts) in enumerate(lengths.counts.items()):
            total = max(1, sum(counts))
            axes.stairs(
                [count / total for count in counts],
                lengths.edges,
                color=color(series),
                linestyle=DASHES[series],
                linewidth=1.5,
                label=split,
                zorder=2,
            )
        axes.set_xlabel("tokens")
        axes.set_ylabel("share of texts")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return svg_of(figure, "text-lengths")
