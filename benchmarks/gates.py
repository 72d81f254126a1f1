"""What has to hold before a speed counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.contenders import RIVALS
from benchmarks.statistics import accuracy_difference

NOT_MEASURED = "not measured"
_ACCURATE = {"P": "", "P-bf16": " in bfloat16"}
"""Who has to reach the rival's accuracy: small bases are trained in float32 unless told otherwise."""


def gates_of(result: Mapping[str, Any], strategy: str) -> list[dict[str, Any]]:
    """List a strategy's gates: those that were measured, those that were not, and the accuracy.

    Args:
        result: the whole result.
        strategy: whose.
    """
    found = result["parts"].get("gates", {}).get("strategies", {}).get(strategy, {})
    if found.get("status") == "measured":
        first = list(found["gates"])
    else:
        first = [_gate("first step and artifact", None, passed=False, note=found.get("reason", NOT_MEASURED))]  # fmt: skip
    return [*first, *(_accuracy_gate(result, strategy, name) for name in _ACCURATE)]


def void(result: Mapping[str, Any], strategy: str) -> str | None:
    """Say why the speeds of a strategy do not count; None where they do."""
    failed = [gate for gate in gates_of(result, strategy) if not gate["passed"]]
    if not failed:
        return None
    return "; ".join(f"{gate['name']}: {gate['note'] or gate['value']}" for gate in failed)


def _accuracy_gate(result: Mapping[str, Any], strategy: str, own: str) -> dict[str, Any]:
    """Ask whether peftune's accuracy is at most a standard error below its rival's."""
    name = f"final accuracy{_ACCURATE[own]}"
    runs = {
        run["contender"]: [seed["right"] for seed in run["seeds"]]
        for run in result["parts"].get("accuracy", {}).get("runs", [])
        if run["strategy"] == strategy and run["status"] == "measured"
    }
    if not {own, RIVALS[strategy]} <= runs.keys():
        return _gate(name, None, passed=False, note=NOT_MEASURED)
    found = accuracy_difference(runs[own], runs[RIVALS[strategy]])
    note = f"{found.value:+.3f}, standard error {found.error:.3f}"
    return _gate(name, found.value, passed=found.value >= -found.error, note=note)


def _gate(name: str, value: float | None, *, passed: bool, note: str = "") -> dict[str, Any]:
    return {"name": name, "value": value, "passed": passed, "note": note}
