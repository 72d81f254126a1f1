"""Results of a probe: forgetting with its interval, power and verdict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftune.data.documents import documents_sha256
from peftune.forgetting.measurement import ProbeText
from peftune.probes import Measurement
from peftune.probes.base import TOO_LARGE
from peftune.stats.intervals import (
    FEWEST_DOCUMENTS,
    Interval,
    cannot_exclude,
    ratio_interval,
    share_change_interval,
)
from peftune.stats.tests import McNemar, Power, mcnemar, power

Verdict = Literal["improved", "retained", "forgot", "inconclusive", "nothing learned"]


def assess_probe(
    *,
    margin: float | None,
    ci95: Interval | None,
    ci90: Interval | None,
    excludes_loss: bool,
    learned: bool | None,
) -> Verdict | None:
    """Assess one probe.

    "Retained" is a claim of equivalence: the upper end of the 90% interval, which is a one-sided
    test at 5%, lies below the margin, and the documents can exclude a loss that few of them bear
    (`peftune.stats.intervals.cannot_exclude`). That no loss was found is not enough. "Improved" and
    "forgot" are differences: the 95% interval lies below or above zero; and "improved", too, says that
    no few documents bear a loss.

    Args:
        margin: loss that still counts as retained; None gives no verdict.
        ci95: 95% interval of the loss.
        ci90: 90% interval of the loss.
        excludes_loss: whether the documents can exclude a loss that few of them bear.
        learned: whether the task was learned; None where it is not known.

    References:
        Schuirmann 1987, A comparison of the two one-sided tests procedure.
    """
    if margin is None or learned is None:
        return None
    if not learned:
        return "nothing learned"
    if ci90 is None or ci95 is None:
        return "inconclusive"
    if ci95[1] < 0:
        return "improved" if excludes_loss else "inconclusive"
    if ci90[1] < margin:
        return "retained" if excludes_loss else "inconclusive"
    return "forgot" if ci95[0] > 0 else "inconclusive"


def verdict(words: Sequence[Verdict | None]) -> Verdict | None:
    """Return the verdict on all probes of a run: the worst verdict of any of them."""
    order: tuple[Verdict, ...] = ("nothing learned", "forgot", "inconclusive", "retained", "improved")  # fmt: skip
    return next((word for word in order if word in words), None)


@dataclass(frozen=True, slots=True)
class Quantization:
    """The cost of a base in 8 bits, separate from forgetting; positive is worse.

    Args:
        before_float32: the base in float32.
        cost: the quantized base against it.
        total: the tuned model against it: exactly cost plus forgetting.
    """

    before_float32: float
    cost: float
    total: float


@dataclass(frozen=True, slots=True)
class Heads:
    """Forgetting under two output heads, where the tied embedding itself is trainable.

    Args:
        tied: under the tuned model's own embedding: the model as it is.
        base: under the base's embedding: forgetting of the backbone alone.
    """

    tied: float
    base: float


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe for one run.

    Args:
        name: the probe's name.
        type: which probe it is.
        metric: what `before` and `after` are.
        unit: their unit.
        higher_is_better: whether a larger value is a better one.
        before: the untouched base, in the precision in which it was trained on.
        after: the tuned model.
        forgetting: the change, positive where it got worse.
        ci95: 95% paired interval over documents, of this one model.
        ci90: 90% interval; its upper end below the margin is a one-sided test at 5%.
        margin: loss that still counts as retained.
        verdict: the verdict on this probe.
        power: how many documents it takes to see a loss of the margin.
        kl: mean divergence KL(base || tuned), nats per token.
        kl_ci95: 95% interval of it over documents.
        mcnemar: exact test of right and wrong answers.
        heads: forgetting under either output head, where the embedding is trainable.
        quantization: the cost of an 8-bit base.
        details: the same change in other units, and other values of the probe; None for a value
            that no number of 64 bits can hold.
        n_documents: documents scored.
        n_tokens: tokens scored, each once.
        data_sha256: hash of the documents.
        protocol: how they were scored, with its hash.
        reason: why values are None, or a verdict is inconclusive.
    """

    name: str
    type: str
    metric: str
    unit: str
    higher_is_better: bool
    before: float
    after: float
    forgetting: float
    ci95: Interval | None
    ci90: Interval | None
    margin: float | None
    verdict: Verdict | None
    power: Power | None
    kl: float | None
    kl_ci95: Interval | None
    mcnemar: McNemar | None
    heads: Heads | None
    quantization: Quantization | None
    details: Mapping[str, float | None]
    n_documents: int
    n_tokens: int
    data_sha256: str
    protocol: Mapping[str, Any]
    reason: str | None


def forgetting_of(
    text: ProbeText,
    *,
    before: Measurement,
    after: Measurement,
    scoring: Mapping[str, Any],
    learned: bool | None = None,
    float_base: Measurement | None = None,
) -> ProbeResult:
    """Compare one probe's measurements before and after.

    Args:
        text: the probe and its documents.
        before: the base.
        after: the tuned model.
        scoring: the part of the protocol that the scorer decides.
        learned: whether the task was learned; None where it is not known, and there is no verdict.
        float_base: the base in float32, where `before` is in another precision.
    """
    probe = text.probe
    before, after = before.scored(), after.scored()
    sign = -1.0 if probe.higher_is_better else 1.0
    first, last = _signed(before, sign), _signed(after, sign)
    change = assess_change(
        first.total,
        last.total,
        first.weight,
        margin=probe.margin,
        right_or_wrong=probe.right_or_wrong,
        learned=learned,
    )
    kl = after.kl
    details = probe.details(before, after)
    infinite = [name for name, value in details.items() if not math.isfinite(value)]
    too_large = f"details: {', '.join(infinite)} {TOO_LARGE}" if infinite else None
    reason = _reason(text, after, change, learned=learned, quantized=float_base is not None)
    tokens = after.tokens.astype(np.float64)
    return ProbeResult(
        name=text.label,
        type=probe.name,
        metric=probe.metric,
        unit=probe.unit,
        higher_is_better=probe.higher_is_better,
        before=before.value,
        after=after.value,
        forgetting=_change(first, last),
        ci95=change.ci95,
        ci90=change.ci90,
        margin=probe.margin,
        verdict=change.verdict,
        power=change.power,
        kl=None if kl is None else float(kl.sum() / tokens.sum()),
        kl_ci95=None if kl is None else _never_negative(ratio_interval(kl, tokens)),
        mcnemar=mcnemar(before.total, after.total) if probe.right_or_wrong else None,
        heads=_heads(first, after),
        quantization=_quantization(float_base, first, last, sign),
        details={name: None if name in infinite else value for name, value in details.items()},
        n_documents=len(after.weight),
        n_tokens=int(after.tokens.sum()),
        data_sha256=documents_sha256(text.documents),
        protocol=protocol_with_digest(text, scoring),
        reason="; ".join(filter(None, (reason, too_large))) or None,
    )


@dataclass(frozen=True, slots=True)
class AssessedChange:
    """The intervals, power and verdict of a change over documents.

    Args:
        ci95: 95% interval.
        ci90: 90% interval.
        power: how many documents it takes; None without a margin or an interval.
        verdict: the verdict.
        inconclusive: why it is not "retained", though the 90% interval lies below the margin.
    """

    ci95: Interval | None
    ci90: Interval | None
    power: Power | None
    verdict: Verdict | None
    inconclusive: str | None


def assess_change(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    margin: float | None,
    right_or_wrong: bool,
    learned: bool | None,
) -> AssessedChange:
    """Assess the change of a ratio of sums, of which less is better.

    Args:
        before: numerators of the base, (documents,).
        after: numerators of the tuned model on the same documents.
        weight: denominators.
        margin: loss that still counts as retained; None where the probe has none.
        right_or_wrong: whether every document is just right or wrong.
        learned: whether the task was learned; None where it is not known.
    """
    change = after - before
    ci95, ci90 = (
        change_interval(
            before, after, weight, confidence=confidence, right_or_wrong=right_or_wrong
        )
        for confidence in (0.95, 0.90)
    )
    hidden = cannot_exclude(change, weight)
    word = assess_probe(
        margin=margin, ci95=ci95, ci90=ci90, excludes_loss=hidden is None, learned=learned
    )
    below = margin is not None and ci90 is not None and ci90[1] < margin
    return AssessedChange(
        ci95,
        ci90,
        None if margin is None or ci95 is None else power(change, weight, margin=margin),
        word,
        hidden if below and word == "inconclusive" else None,
    )


def change_interval(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    confidence: float,
    right_or_wrong: bool,
) -> Interval | None:
    """Return the interval of the change of a ratio of sums, of which less is better.

    Args:
        before: numerators, (documents,).
        after: numerators of the same documents.
        weight: denominators.
        confidence: share of repetitions in which the interval should hold the truth.
        right_or_wrong: whether every document is just right or wrong.
    """
    if right_or_wrong and len(before) >= FEWEST_DOCUMENTS:
        # Signed so that less is better: a right answer is -1, and one lost is a change of +1.
        low, high = share_change_interval(-before, -after, confidence=confidence)
        return -high, -low
    return ratio_interval(after - before, weight, confidence=confidence)


def _never_negative(interval: Interval | None) -> Interval | None:
    return None if interval is None else (max(0.0, interval[0]), interval[1])


def protocol_with_digest(text: ProbeText, scoring: Mapping[str, Any]) -> dict[str, Any]:
    """Describe how a probe scores, with a hash of the description."""
    facts = {**scoring, **text.probe.protocol()}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return {**facts, "sha256": digest}


def _signed(measurement: Measurement, sign: float) -> Measurement:
    """Turn a measurement so that lower is better."""
    return dataclasses.replace(measurement, total=sign * measurement.total)


def _change(first: Measurement, last: Measurement) -> float:
    return float((last.total - first.total).sum() / first.weight.sum())


def _heads(first: Measurement, after: Measurement) -> Heads | None:
    if after.base_head is None:
        return None
    under_base = Measurement(after.base_head, after.weight, after.tokens)
    return Heads(tied=_change(first, after), base=_change(first, under_base))


def _quantization(
    float_base: Measurement | None, first: Measurement, last: Measurement, sign: float
) -> Quantization | None:
    if float_base is None:
        return None
    exact = _signed(float_base.scored(), sign)
    return Quantization(float_base.value, _change(exact, first), _change(exact, last))


def _reason(
    text: ProbeText,
    after: Measurement,
    change: AssessedChange,
    *,
    learned: bool | None,
    quantized: bool,
) -> str | None:
    """Explain every value that is None or inconclusive: `keys: cause; keys: cause`."""
    probe, count = text.probe, len(after.weight)
    shown = "1 document has" if count == 1 else f"{count} documents have"
    causes = (
        (
            "ci95, ci90, kl_ci95, power",
            count < FEWEST_DOCUMENTS,
            f"{shown} too little spread for an interval; it takes {FEWEST_DOCUMENTS}",
        ),
        ("kl, kl_ci95", after.kl is None, "this probe does not measure it"),
        ("power, verdict", probe.margin is None, "the probe has no margin"),
        ("verdict", learned is None, "there is no task score to compare it with"),
        ("verdict", change.inconclusive is not None, change.inconclusive),
        ("mcnemar", not probe.right_or_wrong, "its documents are not right or wrong"),
        ("heads", after.base_head is None, "no other output head was read beside it"),
        ("quantization", not quantized, "the base is in float32"),
    )
    return "; ".join(f"{keys}: {cause}" for keys, absent, cause in causes if absent) or None
