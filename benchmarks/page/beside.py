"""Classifying, what is saved, measuring forgetting, and starting."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.page.marks import NONE, grid, number
from benchmarks.page.runs import Result, grouped, measured, median, title, works


def others(result: Result) -> str:
    """Show classifying, what is saved, forgetting and starts."""
    runs, rows = measured(result), []
    for strategy, batch in works(runs):
        for group in grouped(runs, strategy, batch):
            speed = median((run["evaluation"] or {}).get("examples_per_second") for run in group)
            saved = next((run["saved"] for run in group if run["saved"]), None) or {}
            if speed is not None:
                cells = [number(speed), *(f"{saved[name]:,}" if name in saved else NONE for name in ("weights", "folder"))]  # fmt: skip
                rows.append([f"`{strategy}`: {title(group[0])}", *cells])
    heads = ["", "classified/s", "saved weights, bytes", "saved folder, bytes"]
    parts = [f"### Classifying and saving\n\n{grid(heads, rows)}"] if rows else []
    return "\n".join([*parts, *_forgetting(result), *_startup(result)])


def _forgetting(result: Result) -> Iterator[str]:
    found = result["parts"].get("forgetting", {})
    if found.get("status") == "measured":
        rows = [
            ["the base, before", number(found["base_seconds"])],
            ["the base, from the cache", number(found["cached_base_seconds"])],
            ["the tuned model, its base beside it", number(found["tuned_seconds"])],
            [
                "the tuned model alone, a point of a forgetting curve",
                number(found["tuned_alone_seconds"]),
            ],
            ["two plain passes over all logits", number(found["naive_seconds"])],
        ]
        agrees = f"largest difference of a document {found['difference']:.1e}"
        yield f"### Measuring forgetting\n\n{found['documents']} documents, {found['tokens']:,} tokens; {agrees}.\n\n{grid(['', 'seconds'], rows)}"


def _startup(result: Result) -> Iterator[str]:
    found = result["parts"].get("startup")
    if found:
        rows = [
            [f"`{name}`", number(statistics.median(values))]
            for name, values in found["milliseconds"].items()
        ]
        yield f"### Starting\n\n{grid(['', 'ms'], rows)}"
