"""No label: the backbone predicts the next token, scored on held-out text before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from peftune.data.rows import Rows
from peftune.models.prepare import compared_with, preparation_of
from peftune.probes import LanguageModelLoss, Measurement
from peftune.probes.base import TOO_LARGE, perplexity
from peftune.recipe.task_type import LANGUAGE_MODELING
from peftune.stats.intervals import FEWEST_DOCUMENTS, ratio_interval
from peftune.tasks.base import TaskMethods
from peftune.tasks.scores import Learning

_PROBE = LanguageModelLoss(dataset_name="bundled:general-text", name="domain")
"""The one way in which text is scored; the documents are the run's own."""


class LanguageModeling(TaskMethods):
    """Rows have no labels; `read_domain` and `domain_learning` score their text."""

    task = LANGUAGE_MODELING


@dataclass(frozen=True, slots=True)
class DomainText:
    """Held-out documents of the domain, read by the base and by the tuned model.

    Args:
        before: the base on each document.
        after: the tuned model on each.
    """

    before: Measurement
    after: Measurement


def read_domain(model: nn.Module, rows: Rows) -> DomainText:
    """Score held-out documents as the probe `lm-loss` does, by the base and by the model as it is.

    Args:
        model: a prepared model, trained.
        rows: one document each.
    """
    from peftune.forgetting.measurement import ProbeText, measure_base, measure_with

    text = ProbeText(_PROBE, tuple(rows.texts))
    [after] = measure_with(model, preparation_of(model).tokenizer, [text])
    [before] = measure_base(compared_with(model), [text])
    return DomainText(before, after)


def domain_learning(
    domain: DomainText, *, split: str, curve: Sequence[Mapping[str, Any]] = ()
) -> Learning:
    """Score how much better the domain's text is predicted than by the base.

    Args:
        domain: from `read_domain`.
        split: which split the documents are.
        curve: points of the training curve.
    """
    from peftune.tasks.significance import significance_of_gain

    before, after = domain.before, domain.after
    gain = before.total - after.total
    scores = _scores(after)
    baseline = _scores(before)
    reasons = ["accuracy, macro_f1, confusion: language modeling has no labels"]
    if None in (scores["perplexity"], baseline["perplexity"]):
        reasons.append(f"perplexity: {TOO_LARGE}")
    if len(gain) < FEWEST_DOCUMENTS:
        reasons.append(f"ci95: it takes {FEWEST_DOCUMENTS} documents")
    return Learning(
        split=split,
        n=len(gain),
        accuracy=None,
        macro_f1=None,
        loss=_nats(after),
        metrics={**scores, "bits_per_byte_gain": float(gain.sum() / before.weight.sum())},
        ci95={
            "bits_per_byte": ratio_interval(after.total, after.weight),
            "bits_per_byte_gain": ratio_interval(gain, before.weight),
        },
        per_label={},
        confusion=None,
        baselines={
            "base": {
                "loss": _nats(before),
                **{name: value for name, value in baseline.items() if value is not None},
            }
        },
        curve=curve,
        reason="; ".join(reasons),
        task=LANGUAGE_MODELING.name,
        significance=significance_of_gain(gain, before.weight),
    )


def domain_lines(rows: Rows, domain: DomainText) -> Iterator[dict[str, Any]]:
    """Return for each document the bits that the base and the tuned model need for it."""
    before, after = domain.before, domain.after
    for index, row in enumerate(rows.ids):
        yield {
            "id": row,
            "bits_before": float(before.total[index]),
            "bits_after": float(after.total[index]),
            "bytes": int(after.weight[index]),
            "tokens": int(after.tokens[index]),
        }


def _scores(measured: Measurement) -> dict[str, float | None]:
    surprise = perplexity(_nats(measured))
    return {
        "perplexity": surprise if math.isfinite(surprise) else None,
        "bits_per_byte": measured.value,
    }


def _nats(measured: Measurement) -> float:
    """Return the loss, in nats per token."""
    return float(measured.total.sum()) * math.log(2) / float(np.sum(measured.tokens))
