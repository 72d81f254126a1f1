"""What the prompted base answers, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftune.baselines.baseline_scores import Baseline
from peftune.baselines.measure import FewShot

LEGEND = (
    "Brackets: 95% intervals over rows. Figures are means over the choices of examples, after contextual calibration; "
    "uncalibrated: accuracy before it. Log loss (nats) and calibration error (ECE): lower is better. "
    "Fitted: examples for which a prompt had room. Nothing was trained."
)


def few_shot_rows(found: FewShot) -> list[dict[str, str]]:
    """One row a number of examples, after the majority class."""
    return [_row(baseline) for baseline in (found.majority, *found.prompted)]


def notes_of(found: FewShot) -> Iterator[str]:
    """Say whether prompting tells anything, what was left out, and why figures are missing."""
    yield _answer(found)
    asked = f"{found.rows_asked} of {found.rows_judged}"
    sample = ", a stratified sample" if found.rows_asked < found.rows_judged else ""
    yield f"Asked about {asked} {found.split} rows{sample}; the examples are train rows."
    if found.examples_left_out:
        yield f"Left out of the examples: {found.examples_left_out} train rows whose text is among the {found.split} rows."
    for baseline in found.prompted:
        if baseline.accuracy is None:
            yield f"{baseline.title}: {baseline.reason}."


def _answer(found: FewShot) -> str:
    chance = found.majority.accuracy or 0.0
    above = [
        baseline.title
        for baseline in found.prompted
        if baseline.ci95 is not None and baseline.ci95[0] > chance
    ]
    if not above:
        return f"No prompt is clearly above the majority class ({chance:.3f})."
    return f"Clearly above the majority class ({chance:.3f}): {'; '.join(above)}."


def _row(baseline: Baseline) -> dict[str, str]:
    details = baseline.details
    choices = [choice for choice in details.get("choices", ()) if "accuracy" in choice]
    interval = baseline.ci95
    return {
        "": f"{details['shots']} examples" if "shots" in details else baseline.title,
        "accuracy": _shown(baseline.accuracy)
        + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""),
        "macro F1": _shown(baseline.macro_f1),
        "log loss": _shown(_mean(choices, "log_loss")),
        "ECE": _shown(_mean(choices, "ece")),
        "uncalibrated": _shown((details.get("uncalibrated") or {}).get("accuracy")),
        "fitted": _fitted(choices),
        "choices": str(len(choices) or "-"),
        "seconds": f"{baseline.seconds:.0f}" if details else "-",
    }


def _fitted(choices: list[Mapping[str, Any]]) -> str:
    fitted = [choice["examples_fitted"] for choice in choices]
    if not fitted:
        return "-"
    fewest, most = (
        pick(one[key] for one in fitted) for pick, key in ((min, "fewest"), (max, "most"))
    )
    return str(most) if fewest == most else f"{fewest} to {most}"


def _mean(choices: list[Mapping[str, Any]], key: str) -> float | None:
    values = [float(choice[key]) for choice in choices if choice.get(key) is not None]
    return sum(values) / len(values) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
