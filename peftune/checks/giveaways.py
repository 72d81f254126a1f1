"""Single tokens that give the label away."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from scipy.stats import binom

from peftune.checks.facts import DataFacts
from peftune.checks.places import rows_in_words
from peftune.checks.result import LABELLED, Check, CheckResult

_TOKEN = re.compile(r"\w+|[^\w\s]+")
_SURE = 0.98
_SHARE = 0.05
_P_VALUE = 1e-3
_LEAST_ROWS = 10
_MOST_READ = 100_000
_SHOWN = 3

TOKEN = Check(
    code="giveaway-token",
    worst="warn",
    looks_for="One token decides the label, as where a program has written it beside the text: a model learns the token, and nothing else.",
    rule=f"Its rows, at least {_LEAST_ROWS}, have one label in {_SURE:.0%} of cases, beyond chance (binomial test, p < {_P_VALUE:g} after Bonferroni), and it tells {_SHARE:.0%} of all that there is to know of the label (mutual information over entropy). Words that people use, such as `love`, do not reach that.",
    remedy="Look at the rows; remove the token from the texts if it is no part of what people write.",
    sound="No single token gives the label away.",
    tasks=LABELLED,
)


def find_giveaways(facts: DataFacts) -> CheckResult | None:
    """Look for tokens that nearly always go with one label of train."""
    classes = _classes(facts)
    labels = Counter(classes.values())
    if len(labels) < 2:  # noqa: PLR2004 - nothing to give away
        return None
    found = _telling(Counter(_pairs(facts, classes)), labels)
    if not found:
        return None
    tokens = {token for token, _, _ in found}
    rows = [row for row in classes if tokens & _tokens(facts.train.texts[row])]
    said = [
        f"'{token}' goes with '{label}' and tells {share:.0%} of the label"
        for token, label, share in found[:_SHOWN]
    ]
    return TOKEN.found(
        f"{'; '.join(said)}; {rows_in_words({'train': rows})} with it.", {"train": rows}
    )


def _classes(facts: DataFacts) -> dict[int, str]:
    """Give each row of train one class: its label, its set of labels, or whether it is high."""
    rows = dict(facts.train.labelled())
    if facts.kind == "regression":
        values = {row: _number(labels) for row, labels in rows.items()}
        middle = sorted(values.values())[len(values) // 2] if values else 0.0
        return {row: "high" if value >= middle else "low" for row, value in values.items()}
    return {row: ", ".join(sorted(labels)) for row, labels in rows.items()}


def _number(labels: Sequence[str]) -> float:
    try:
        value = float(labels[0])
    except (ValueError, IndexError):
        return 0.0
    return value if math.isfinite(value) else 0.0


def _pairs(facts: DataFacts, classes: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Give each token of each row with the row's class; of very many rows every so manieth."""
    step = 1 + len(classes) // _MOST_READ
    for row, label in list(classes.items())[::step]:
        for token in _tokens(facts.train.texts[row]):
            yield token, label


def _tokens(text: str) -> set[str]:
    return set(_TOKEN.findall(text.casefold()))


def _telling(
    pairs: Counter[tuple[str, str]], labels: Counter[str]
) -> list[tuple[str, str, float]]:
    """List the tokens that give a label away, with the share of its entropy that they tell."""
    total = sum(labels.values())
    uncertainty = _entropy(labels.values())
    rows: Counter[str] = Counter()
    best: dict[str, tuple[int, str]] = {}
    for (token, label), count in pairs.items():
        rows[token] += count
        best[token] = max(best.get(token, (0, "")), (count, label))
    found = []
    for token, (count, label) in best.items():
        if rows[token] < _LEAST_ROWS or count < _SURE * rows[token] or rows[token] == total:
            continue
        chance = labels[label] / total
        if binom.sf(count - 1, rows[token], chance) * len(rows) > _P_VALUE:
            continue
        inside = [pairs[token, name] for name in labels]
        outside = [labels[name] - pairs[token, name] for name in labels]
        left = (sum(inside) * _entropy(inside) + sum(outside) * _entropy(outside)) / total
        share = (uncertainty - left) / uncertainty
        if share >= _SHARE:
            found.append((token, label, share))
    return sorted(found, key=lambda each: -each[2])


def _entropy(counts: Iterable[int]) -> float:
    values = [count for count in counts if count > 0]
    total = sum(values)
    return -sum(count / total * math.log2(count / total) for count in values) if total else 0.0
