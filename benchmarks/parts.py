"""The parts of a run that have no rounds: one function each, named as on the command line."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import RIVALS, contender
from benchmarks.plan import Entry
from benchmarks.processes import Processes
from benchmarks.startup import startup as time_starts
from benchmarks.work import Work, precision_key

_PILOT_WARM_UP = 2


def startup(work: Work, processes: Processes) -> dict[str, Any]:
    """Time the starts of light commands."""
    return {
        "milliseconds": time_starts(processes.environment(), repeats=work.settings.sizes.repeats)
    }


def precision(work: Work, processes: Processes) -> dict[str, Any]:
    """Find the faster precision of the hand-tuned contenders, for each strategy and batch."""
    settings, tried = work.settings, {}
    if not settings.sizes.pilot:
        return {"chosen": {}, "tried": {}}
    steps = settings.sizes.pilot + _PILOT_WARM_UP
    for strategy in settings.strategies:
        name = RIVALS[strategy]
        if name not in settings.contenders or contender(name).absent(strategy):
            continue
        for batch in settings.batches_of(strategy):
            setup = work.setup(strategy, batch, count=steps * batch, steps=steps)
            key = precision_key(Entry(name, strategy, batch))
            tried[key] = processes.run(
                "pilot",
                f"precision-{strategy}-{batch}",
                name=name,
                setup=setup,
                warm_up=_PILOT_WARM_UP,
            )
    chosen = {key: found.get("precision", "fp32") for key, found in tried.items()}
    return {"chosen": chosen, "tried": tried}


def gates(work: Work, processes: Processes) -> dict[str, Any]:
    """Check each strategy's first step and its artifact."""
    found = {}
    for strategy in work.settings.strategies:
        reason = contender(RIVALS[strategy]).absent(strategy)
        found[strategy] = (
            {"status": "absent", "reason": reason}
            if reason
            else processes.run("gates", f"gates-{strategy}", **work.gates(strategy))
        )
    return {"strategies": found}


def forgetting(work: Work, processes: Processes) -> dict[str, Any]:
    """Time the measurement of forgetting, and two plain passes."""
    return processes.run("forgetting", "forgetting", **work.forgetting())


def accuracy(work: Work, processes: Processes) -> dict[str, Any]:
    """Train the bundled base to the end, with peftune and its rival; the tutorial once, with LoRA."""
    found = []
    for strategy in work.settings.strategies:
        names = [RIVALS[strategy], "P", "P-bf16", *(["T"] if strategy == "lora" else [])]
        for name in names:
            if name not in work.settings.contenders or contender(name).absent(strategy):
                continue
            label = f"accuracy-{name}-{strategy}"
            measured = processes.run("accuracy", label, **work.accuracy(name, strategy))
            found.append({"contender": name, "strategy": strategy, **measured})
    return {"runs": found}
