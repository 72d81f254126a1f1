"""One run: each part in fresh processes, the contenders of `speed` in turns, the result written as it grows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks import parts
from benchmarks.machine import machine
from benchmarks.plan import Entry, order_of_round, planned
from benchmarks.processes import Processes
from benchmarks.ratios import ratios_of
from benchmarks.result import SCHEMA, Result, begun, stamped, write_result
from benchmarks.rows import bundled_rows, csv_rows, described, token_lengths, write_rows
from benchmarks.settings import FLOOR, PARTS, Settings
from benchmarks.shapes import Base, base_of
from benchmarks.work import Work, precision_key

Say = Callable[[str], None]

_WHO = ("contender", "strategy", "batch")


def run(settings: Settings, say: Say) -> Result:
    """Measure what the settings ask for.

    Args:
        settings: what, and how much.
        say: takes a line on how far it is.
    """
    settings.work.mkdir(parents=True, exist_ok=True)
    base = base_of(settings.shape, settings.work, settings.base)
    work, about = _work(settings, base)
    result = begun(about, settings.out)
    processes = Processes(settings.work, settings.threads)
    described_machine = machine()
    started = time.perf_counter()
    for part in PARTS:
        needed = part == "precision" and "speed" in settings.parts and part not in result["parts"]
        if part not in settings.parts and not needed:
            continue
        say(f"{part} …")
        begun_at = time.perf_counter()
        for found in _growing(part, work, processes, result, started=started, say=say):
            seconds = round(time.perf_counter() - begun_at)
            result["parts"][part] = stamped({**found, "seconds": seconds}, described_machine)
            result["ratios"] = ratios_of(result, base.shape)
            write_result(result, settings.out)
    return result


def _work(settings: Settings, base: Base) -> tuple[Work, Result]:
    """Write the rows, and say what the work is."""
    rows = bundled_rows("train") if settings.rows is None else csv_rows(settings.rows)
    lengths = token_lengths(rows, base.folder)
    source = "bundled:posts" if settings.rows is None else settings.rows.name
    work = Work(settings, base, write_rows(rows, settings.work / "rows.jsonl"), tuple(lengths))
    about = {
        "schema": SCHEMA,
        "shape": settings.shape,
        "base": {"kind": base.kind, **dataclasses.asdict(base.shape)},
        "rows": {
            **described(rows, lengths, source),
            "passes": {
                str(batch): {"tokens": work.tokens(batch), "step": work.tokens_of_step(batch)}
                for batch in settings.batches
            },
        },
    }
    return work, about


def _growing(
    part: str,
    work: Work,
    processes: Processes,
    result: Result,
    *,
    started: float,
    say: Say,
) -> Iterator[dict[str, Any]]:
    """Measure a part, and give what is known of it whenever that is worth keeping."""
    if part == "speed":
        chosen = result["parts"]["precision"]["chosen"]
        yield from _rounds(work, processes, chosen, started=started, say=say)
    else:
        yield getattr(parts, part)(work, processes)


def _rounds(
    work: Work, processes: Processes, chosen: Mapping[str, str], *, started: float, say: Say
) -> Iterator[dict[str, Any]]:
    """Go through the rounds, as many as the minutes allow, and give all that is known after each."""
    settings = work.settings
    groups, absent = planned(settings)
    runs: list[dict[str, Any]] = []
    last = 0.0
    for number in range(settings.rounds):
        begun_at = time.perf_counter()
        if number and begun_at - started + last > 60 * settings.minutes:
            say(f"no time for round {number + 1} of {settings.rounds}")
            break
        for entry in order_of_round(groups, number):
            measured = _measured(work, processes, entry, number, chosen)
            runs.append({**dataclasses.asdict(entry), "round": number, **measured})
            say(_line(runs[-1]))
        last = time.perf_counter() - begun_at
        yield {
            "rounds": number + 1,
            "rounds_asked": settings.rounds,
            "absent": absent,
            "runs": runs,
        }


def _measured(
    work: Work, processes: Processes, entry: Entry, number: int, chosen: Mapping[str, str]
) -> dict[str, Any]:
    """Measure one contender once, a hand-tuned one in the precision that was chosen for it."""
    label = f"{entry.contender}-{entry.strategy}-{entry.batch}-{number}"
    if entry.contender == FLOOR:
        return processes.run("rates", label, **work.rates())
    precision = chosen.get(precision_key(entry))
    arguments = work.speed(entry, number=number, precision=precision or "fp32")
    return {"precision": precision, **processes.run("speed", label, **arguments)}


def _line(run: Mapping[str, Any]) -> str:
    name = " ".join(str(run[key]) for key in _WHO if run[key])
    if run["status"] != "measured":
        return f"  round {run['round'] + 1}, {name}: {run['status']}: {run['reason']}"
    if run["contender"] == FLOOR:
        return f"  round {run['round'] + 1}, {name}: copies {run['copy_bytes_per_second'] / 1e9:.1f} GB/s"
    return f"  round {run['round'] + 1}, {name}: {run['examples_per_second']:.2f} examples/s"


def failures(found: object, where: str = "") -> Iterator[str]:
    """Give what failed in a result, as against what is absent for a stated reason.

    Args:
        found: a result, or a part of one.
        where: what it is called.
    """
    if isinstance(found, Mapping):
        if found.get("status") == "failed":
            name = " ".join(str(found[key]) for key in _WHO if found.get(key)) or where
            yield f"{name}: {found['reason']}"
        for name, inner in found.items():
            yield from failures(inner, str(name))
    elif isinstance(found, list):
        for inner in found:
            yield from failures(inner, where)
