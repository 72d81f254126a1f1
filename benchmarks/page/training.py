"""Ratios, training speed and memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.gates import void
from benchmarks.page.marks import NONE, grid, mebibytes, milliseconds, number, percent, times
from benchmarks.page.runs import (
    Result,
    Run,
    grouped,
    measured,
    median,
    percentile,
    shape_of,
    title,
    works,
)
from benchmarks.ratios import FORGETTING, SHARE, SPEED, floors_by_round


def ratios(result: Result) -> str:
    """List the ratios: those with an aim, then those of speed and memory that stand elsewhere as figures."""
    found = [ratio for ratio in result.get("ratios", []) if ratio["aim"]]
    found += [ratio for ratio in result.get("ratios", []) if not ratio["aim"] and _shown(ratio)]
    rows = [
        [
            f"{ratio['what']}, `{ratio['strategy']}`" + (f", batch {ratio['batch']}" if ratio["batch"] else ""),
            ratio["pair"],
            "void" if ratio["void"] else times(ratio["value"], ratio["ci95"]),
            str(ratio["rounds"]),
            ratio["aim"] or "",
            {True: "reached", False: "missed", None: ""}[ratio["reached"]],
        ]
        for ratio in found
    ]  # fmt: skip
    if not rows:
        return ""
    heads = ["ratio", "of", "value, 95% interval", "rounds", "aim", ""]
    return f"### Ratios\n\n{grid(heads, rows)}"


def _shown(ratio: Mapping[str, Any]) -> bool:
    """Leave out shares, which stand beside the speeds, and memory of others than peftune."""
    return ratio["what"] in {SPEED, FORGETTING} or (
        ratio["what"] != SHARE and str(ratio["pair"]).startswith("P/")
    )


def speeds(result: Result) -> str:
    """Show each contender's training, work by work."""
    runs = measured(result)
    parts = []
    for strategy, batch in works(runs):
        heads = ["", "examples/s", "tokens/s", "step, ms", "95% of steps, ms", "share of F", "rounds"]  # fmt: skip
        rows = [_speed_row(result, run, strategy) for run in grouped(runs, strategy, batch)]
        rows += _floor_rows(result, strategy, batch)
        parts.append(f"### Training `{strategy}`, {batch} rows a step\n\n{grid(heads, rows)}")
        if reason := void(result, strategy):
            parts.append(f"Void: {reason}.\n")
    return "\n".join([*parts, _missing(result)]) if parts else ""


def _speed_row(result: Result, runs: Sequence[Run], strategy: str) -> list[str]:
    batch = runs[0]["batch"]
    speeds_found = {run["round"]: run["examples_per_second"] for run in runs}
    floors = floors_by_round(result, strategy, batch, shape_of(result))
    shares = [speeds_found[r] / floors[r] for r in speeds_found.keys() & floors.keys()]
    seconds = [second for run in runs for second in run["step_seconds"]]
    speed, tokens = (
        statistics.median(run[key] for run in runs)
        for key in ("examples_per_second", "tokens_per_second")
    )
    counts = void(result, strategy) is None
    return [
        title(runs[0]),
        number(speed) if counts else "void",
        number(tokens) if counts else "void",
        milliseconds(statistics.median(seconds)) if counts else "void",
        milliseconds(percentile(seconds, 0.95)) if counts else "void",
        percent(statistics.median(shares) if shares and counts else None),
        str(len(runs)),
    ]


def _floor_rows(result: Result, strategy: str, batch: int) -> Iterator[list[str]]:
    tokens = result["rows"]["passes"][str(batch)]["step"] / batch
    for precision in ("fp32", "bf16"):
        found = floors_by_round(result, strategy, batch, shape_of(result), precision)
        if found:
            speed = statistics.median(found.values())
            step = milliseconds(batch / speed)
            yield [f"F: floor, {precision}", number(speed), number(speed * tokens), step, NONE, NONE, str(len(found))]  # fmt: skip


def _missing(result: Result) -> str:
    """Say who could not be measured, or failed, and why."""
    speed = result["parts"]["speed"]
    lines = {
        f"- {title(one)}, `{one['strategy']}`: {one.get('status', 'absent')}, {one['reason']}": None
        for one in [*speed["absent"], *(r for r in speed["runs"] if r["status"] == "failed")]
    }
    return "\n".join(["Not measured:\n", *lines, ""]) if lines else ""


def memory(result: Result) -> str:
    """Show the peak of memory, and what of it is known to be what."""
    runs = measured(result)
    rows = []
    for strategy, batch in works(runs):
        for group in grouped(runs, strategy, batch):
            found = [run["memory"] for run in group]
            parts = [median(one["parts"].get(name) for one in found) for name in ("weights", "gradients", "optimizer", "rest")]  # fmt: skip
            whole = median(one["peak"] for one in found)
            imports = median(one["imports"] for one in found)
            device = [median((one["device"] or {}).get(name) for one in found) for name in ("allocated", "reserved")]  # fmt: skip
            rows.append(
                [
                    f"`{strategy}`, {batch}: {title(group[0])}",
                    *(mebibytes(value) for value in (whole, imports, *parts, *device)),
                ]
            )
    if not rows:
        return ""
    heads = ["peak, MiB", "process", "of it imports", "weights", "gradients", "optimizer", "activations and rest", "GPU allocated", "GPU reserved"]  # fmt: skip
    return f"### Memory\n\n{grid(heads, rows)}"
