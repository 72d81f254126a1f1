"""The sections of the table: each takes the whole result and gives Markdown, or nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.contenders import CONTENDERS, contender
from benchmarks.gates import gates_of, void
from benchmarks.marks import NONE, grid, mebibytes, milliseconds, number, percent, times
from benchmarks.ratios import floors_by_round
from benchmarks.settings import FLOOR
from benchmarks.shapes import Shape

Result = Mapping[str, Any]
Run = Mapping[str, Any]


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


def ratios(result: Result) -> str:
    """List the ratios: those with an aim first, then the rest."""
    found = sorted(result.get("ratios", []), key=lambda ratio: ratio["aim"] is None)
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


def speeds(result: Result) -> str:
    """Show each contender's training, work by work."""
    runs = _measured(result)
    parts = []
    for strategy, batch in _works(runs):
        heads = ["", "examples/s", "tokens/s", "step, ms", "95% of steps, ms", "share of F", "rounds"]  # fmt: skip
        rows = [_speed_row(result, run, strategy) for run in _grouped(runs, strategy, batch)]
        rows += _floor_rows(result, strategy, batch)
        parts.append(f"### Training `{strategy}`, {batch} rows a step\n\n{grid(heads, rows)}")
        if reason := void(result, strategy):
            parts.append(f"Void: {reason}.\n")
    return "\n".join([*parts, _missing(result)]) if parts else ""


def _speed_row(result: Result, runs: Sequence[Run], strategy: str) -> list[str]:
    name, batch = runs[0]["contender"], runs[0]["batch"]
    speeds_found = {run["round"]: run["examples_per_second"] for run in runs}
    floors = floors_by_round(result, strategy, batch, _shape(result))
    shares = [speeds_found[r] / floors[r] for r in speeds_found.keys() & floors.keys()]
    seconds = [second for run in runs for second in run["step_seconds"]]
    speed, tokens = (
        statistics.median(run[key] for run in runs)
        for key in ("examples_per_second", "tokens_per_second")
    )
    counts = void(result, strategy) is None
    return [
        _title(name),
        number(speed) if counts else "void",
        number(tokens) if counts else "void",
        milliseconds(statistics.median(seconds)) if counts else "void",
        milliseconds(_percentile(seconds, 0.95)) if counts else "void",
        percent(statistics.median(shares) if shares and counts else None),
        str(len(runs)),
    ]


def _floor_rows(result: Result, strategy: str, batch: int) -> Iterator[list[str]]:
    tokens = result["rows"]["passes"][str(batch)]["step"] / batch
    for precision in ("fp32", "bf16"):
        found = floors_by_round(result, strategy, batch, _shape(result), precision)
        if found:
            speed = statistics.median(found.values())
            step = milliseconds(batch / speed)
            yield [f"F: floor, {precision}", number(speed), number(speed * tokens), step, NONE, NONE, str(len(found))]  # fmt: skip


def memory(result: Result) -> str:
    """Show the peak of memory, and what of it is known to be what."""
    runs = _measured(result)
    rows = []
    for strategy, batch in _works(runs):
        for group in _grouped(runs, strategy, batch):
            found = [run["memory"] for run in group]
            parts = [_median(one["parts"].get(name) for one in found) for name in ("weights", "gradients", "optimizer", "rest")]  # fmt: skip
            whole = _median(one["peak"] for one in found)
            imports = _median(one["imports"] for one in found)
            device = [_median((one["device"] or {}).get(name) for one in found) for name in ("allocated", "reserved")]  # fmt: skip
            rows.append(
                [
                    f"`{strategy}`, {batch}: {_title(group[0]['contender'])}",
                    *(mebibytes(value) for value in (whole, imports, *parts, *device)),
                ]
            )
    if not rows:
        return ""
    heads = ["peak, MiB", "process", "of it imports", "weights", "gradients", "optimizer", "activations and rest", "GPU allocated", "GPU reserved"]  # fmt: skip
    return f"### Memory\n\n{grid(heads, rows)}"


def others(result: Result) -> str:
    """Show classifying, what is saved, forgetting and starts."""
    runs, rows = _measured(result), []
    for strategy, batch in _works(runs):
        for group in _grouped(runs, strategy, batch):
            speed = _median((run["evaluation"] or {}).get("examples_per_second") for run in group)
            saved = next((run["saved"] for run in group if run["saved"]), None) or {}
            if speed is not None:
                cells = [number(speed), *(f"{saved[name]:,}" if name in saved else NONE for name in ("weights", "folder"))]  # fmt: skip
                rows.append([f"`{strategy}`: {_title(group[0]['contender'])}", *cells])
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
                f"`{run['strategy']}`: {_title(run['contender'])}",
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


TARGET = 0.70
"""Validation accuracy whose first reaching is timed."""


def _seconds_to_target(seeds: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return each seed's training seconds at the first score that reaches the target."""
    return [
        next((p["seconds"] for p in seed["curve"] if p["accuracy"] >= TARGET), None)
        for seed in seeds
    ]


def gates(result: Result) -> str:
    """Show what has to hold before a speed counts."""
    strategies = sorted(
        {strategy for strategy, _ in _works(_measured(result))}
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


def _missing(result: Result) -> str:
    """Say who could not be measured, or failed, and why."""
    speed = result["parts"]["speed"]
    lines = {
        f"- {_title(one['contender'])}, `{one['strategy']}`: {one.get('status', 'absent')}, {one['reason']}": None
        for one in [*speed["absent"], *(r for r in speed["runs"] if r["status"] == "failed")]
    }
    return "\n".join(["Not measured:\n", *lines, ""]) if lines else ""


def _measured(result: Result) -> list[Run]:
    return [
        run
        for run in result["parts"].get("speed", {}).get("runs", [])
        if run["status"] == "measured" and run["contender"] != FLOOR
    ]


def _works(runs: Sequence[Run]) -> list[tuple[str, int]]:
    return sorted({(run["strategy"], run["batch"]) for run in runs})


def _grouped(runs: Sequence[Run], strategy: str, batch: int) -> Iterator[list[Run]]:
    """Give the runs of each contender at one piece of work."""
    for name in CONTENDERS:
        found = [
            run
            for run in runs
            if (run["contender"], run["strategy"], run["batch"]) == (name, strategy, batch)
        ]
        if found:
            yield found


def _title(name: str) -> str:
    return name if name not in CONTENDERS else contender(name).title


def _shape(result: Result) -> Shape:
    return Shape(**{key: value for key, value in result["base"].items() if key != "kind"})


def _median(values: Any) -> float | None:  # noqa: ANN401 - an iterable of figures or None
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


__all__ = ["about", "accuracies", "gates", "memory", "others", "ratios", "speeds"]
