"""A result as Markdown, between the markers of a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.page import beside, evidence, training

BEGIN = "<!-- benchmark: written by `python -m benchmarks table`; what stands here is replaced -->"
END = "<!-- benchmark: end -->"


def write_table(result: Mapping[str, Any], page: Path) -> None:
    """Put a result between a page's markers, in the place of what was there.

    Raises:
        ValueError: the page lacks the markers.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"'{page}' needs the lines '{BEGIN}' and '{END}', one below the other."
        raise ValueError(message)
    page.write_text(f"{before}{BEGIN}\n\n{table_of(result)}\n{END}{after}", encoding="utf-8")


def table_of(result: Mapping[str, Any]) -> str:
    """Make the Markdown of a result: what was measured on, the ratios, and what they are made of."""
    parts = [
        evidence.about(result),
        training.ratios(result),
        training.speeds(result),
        training.memory(result),
        beside.others(result),
        evidence.accuracies(result),
        evidence.gates(result),
    ]
    return "\n".join(part for part in parts if part)
