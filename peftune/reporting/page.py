"""Render a report as one HTML page that needs no network and no script."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from peftune._version import __version__
from peftune.errors import markdown_text, visible, visible_lines
from peftune.experiments.compare.executors import Failure
from peftune.experiments.report import Run
from peftune.experiments.run_evidence import Evidence
from peftune.reporting.contents import (
    Block,
    Cell,
    Code,
    Contents,
    Figures,
    Fold,
    Paragraph,
    Table,
    Tables,
)
from peftune.reporting.plot_style import MARKERS, SERIES
from peftune.stats.intervals import Interval

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
    """Make invisible characters visible in every value of the template except our own markup."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible_lines(value)


def breakable(text: str) -> Markup:
    """Escape a name, and let a line end where one of its words does: `card_<wbr>payment`."""
    return Markup("<wbr>").join(escape(part) for part in _WORD_ENDS.split(visible(text)))


def styles() -> str:
    """Return the style sheet of the page."""
    return (files("peftune.reporting") / "templates" / _STYLES).read_text(encoding="utf-8")


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


Value = str | int | float | None

_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""First characters that make a spreadsheet evaluate a text, full-width forms included."""


def spreadsheet(evidence: Sequence[Evidence], failures: Sequence[Failure]) -> str:
    """Render one line a run; empty where nothing was measured, numbers such that none is rounded.

    A text that a spreadsheet would take for a formula begins with an apostrophe; numbers stay
    numbers, and what is not seen in a text is spelled out.

    Args:
        evidence: the finished runs.
        failures: those that did not finish; they have a `reason` and no numbers.
    """
    rows = [dict(_values(item.run)) for item in evidence]
    rows += [
        {
            "strategy": failure.strategy,
            "seed": failure.seed,
            "status": "failed",
            "reason": failure.message,
        }
        for failure in failures
    ]
    columns = dict.fromkeys(["strategy", "seed", "status"])
    columns.update(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_csv_cell, columns))
    writer.writerows([_csv_cell(row.get(name)) for name in columns] for row in rows)
    return buffer.getvalue()


def _csv_cell(value: Value) -> Value:
    """Write a text so that a spreadsheet shows it and works nothing out."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA_STARTS) else shown


def _values(run: Run) -> Iterator[tuple[str, Value]]:
    yield "strategy", run.run.strategy
    yield "seed", run.run.seed
    yield "status", run.status
    yield "name", run.run.name
    yield "base_model", run.run.base_model
    yield "recipe_sha256", run.run.recipe_sha256
    yield "data_fingerprint", run.run.data_fingerprint
    yield "split", run.learning.split
    yield "n", run.learning.n
    for metric in ("accuracy", "macro_f1"):
        yield metric, getattr(run.learning, metric)
        yield from _bounds(metric, run.learning.ci95.get(metric))
    yield "loss", run.learning.loss
    yield from run.learning.metrics.items()
    for probe in run.forgetting:
        key = f"forgetting.{probe.name}"
        yield key, probe.forgetting
        yield from _bounds(key, probe.ci95)
        yield f"{key}.unit", probe.unit
        yield f"{key}.before", probe.before
        yield f"{key}.after", probe.after
        yield f"{key}.verdict", probe.verdict
    for name in (
        "train_seconds",
        "train_examples_per_second",
        "peak_memory_bytes",
        "trainable_parameters",
        "total_parameters",
        "artifact_bytes",
        "latency_median_ms",
        "latency_p95_ms",
    ):
        yield name, getattr(run.cost, name)


def _bounds(key: str, interval: Interval | None) -> Iterator[tuple[str, Value]]:
    low, high = (None, None) if interval is None else interval
    yield f"{key}.low", low
    yield f"{key}.high", high
