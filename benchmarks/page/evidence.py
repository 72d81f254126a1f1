"""What was measured on, the accuracies, and the gates."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gates import gates_of
from benchmarks.page.marks import NONE, grid
from benchmarks.page.runs import Result, measured, title, works

TARGET = 0.65
"""Validation accuracy whose first reaching is timed."""


def about(result: Result) -> str:
    """Say what was measured, on which machine, with which code."""
    base, rows = result["base"], result["rows"]
    tokens = rows["tokens"]
    machines = {
        _machine(part["machine"]): None for part in result["parts"].values() if "machine" in part
    }
    speed = result["parts"].get("speed", {})
    lines = [
        (
            f"Base: `{result['shape']}`, {base['layers']} blocks of width {base['width']}, weights: {base['kind']}. "
            f"Texts: {rows['source']}, {rows['count']:,} rows, tokens: mean {tokens['mean']}, median {tokens['p50']:.0f}, "
            f"90% {tokens['p90']:.0f}, 99% {tokens['p99']:.0f}, longest {tokens['max']}."
        ),
        *machines,
        f"Rounds: {speed['rounds']} of {speed['rounds_asked']}." if speed else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _machine(found: Mapping[str, Any]) -> str:
    versions = found["versions"]
    kept = ("peftune", "torch", "transformers", "peft", "bitsandbytes")
    named = ", ".join(f"{name} {versions[name] or 'absent'}" for name in kept)
    place = found["device"] if found["device"] != "cpu" else found["processor"] or "cpu"
    changed = " with changes" if found["changed"] else ""
    return (
        f"Machine: {place}, {found['cores']} cores ({', '.join(found['flags']) or found['cpu_capability']}), "
        f"{found['threads']} threads; Python {versions['python']}, {named}; commit {found['commit'] or 'unknown'}{changed}."
    )


def accuracies(result: Result) -> str:
    """Show where each contender ends on the bundled base, and how soon it is near there."""
    runs = [
        run
        for run in result["parts"].get("accuracy", {}).get("runs", [])
        if run["status"] == "measured"
    ]
    rows = []
    for run in runs:
        ends = [statistics.mean(seed["right"]) for seed in run["seeds"]]
        best = max(point["accuracy"] for seed in run["seeds"] for point in seed["curve"])
        reached = _seconds_to_target(run["seeds"])
        rows.append(
            [
                f"`{run['strategy']}`: {title(run)}",
                f"{statistics.mean(ends):.3f}",
                " ".join(f"{end:.3f}" for end in ends),
                f"{best:.3f}",
                " ".join(NONE if one is None else f"{one:.1f}" for one in reached),
            ]
        )
    if not rows:
        return ""
    heads = ["bundled base and posts", "test accuracy", "by seed", "best on validation", f"seconds to {TARGET:.2f} on validation"]  # fmt: skip
    return f"### Accuracy\n\n{grid(heads, rows)}"


def _seconds_to_target(seeds: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return each seed's training seconds at the first score that reaches the target."""
    return [
        next((p["seconds"] for p in seed["curve"] if p["accuracy"] >= TARGET), None)
        for seed in seeds
    ]


def gates(result: Result) -> str:
    """Show what has to hold before a speed counts."""
    strategies = sorted(
        {strategy for strategy, _ in works(measured(result))}
        | set(result["parts"].get("gates", {}).get("strategies", {}))
    )
    rows = [
        [f"`{strategy}`: {gate['name']}", _value(gate["value"]), gate["note"], "holds" if gate["passed"] else "fails"]
        for strategy in strategies
        for gate in gates_of(result, strategy)
    ]  # fmt: skip
    return f"### Gates\n\n{grid(['', 'value', '', ''], rows)}" if rows else ""


def _value(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.1e}" if abs(value) < 0.01 else f"{value:.6g}"  # noqa: PLR2004 - too small to write out
