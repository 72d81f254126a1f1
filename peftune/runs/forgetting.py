"""The forgetting of one run: all measurements set against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from peftune.forgetting.measure import ProbeText
from peftune.forgetting.results import ProbeResult, forgetting_of
from peftune.forgetting.verdict import verdict
from peftune.runs.measured import Measured
from peftune.runs.report import Forgetting

CONTROL = "adapter_off_forgetting"
_CONTROL_FAILED = "the control failed: with the adapter off the model is not the base"


def summarised(
    texts: Sequence[ProbeText],
    measured: Measured,
    *,
    learned: bool | None,
    without: str = "the recipe has no forgetting.probes",
) -> Forgetting:
    """Set all measurements of a model against each other.

    Args:
        texts: probes with their documents.
        measured: the base and the tuned model on them.
        learned: whether the task was learned; None where it is not known.
        without: why there are no probes, where there are none.
    """
    if not texts:
        return Forgetting((), {CONTROL: None}, None, without)
    before, after = measured.before, measured.after
    results = [
        forgetting_of(
            text,
            before=before.measured[index],
            after=after[index],
            scoring=before.scoring,
            learned=learned,
            float_base=before.exact[index] if before.exact else None,
        )
        for index, text in enumerate(texts)
    ]
    control = measured.control
    controls = {CONTROL: control}
    if control not in (None, 0.0):
        results = [_without_verdict(result) for result in results]
        return Forgetting(results, controls, None, _CONTROL_FAILED)
    word = verdict([result.verdict for result in results])
    return Forgetting(results, controls, word, None if word else _no_verdict(learned))


def _without_verdict(result: ProbeResult) -> ProbeResult:
    reasons = [result.reason, f"verdict: {_CONTROL_FAILED}"] if result.verdict else [result.reason]
    return dataclasses.replace(
        result, verdict=None, reason="; ".join(reason for reason in reasons if reason) or None
    )


def _no_verdict(learned: bool | None) -> str:
    if learned is None:
        return "no verdict without a task score beside it"
    return "no probe has a margin"
