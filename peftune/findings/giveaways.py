"""Single tokens that give the label away."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from peftune.data.labels import number_of
from peftune.findings.facts import DataFacts, rows_in_words
from peftune.findings.finding import LABELED, CheckResult, FindingType

_TOKEN = re.compile(r"\w+|[^\w\s]+")
_NO_WORD = re.compile(r"_|\d[^\W\d_]|[^\W\d_]\d")
"""Letters and digits together, or an underscore."""
_SURE = 0.98
_SHARE = 0.05
_P_VALUE = 1e-3
_LEAST_ROWS = 10
_COVERED = 0.95
_PARTLY_COVERED = 0.2
_IN_PLACE = 0.9
_MOST_READ = 100_000
_SHOWN = 3

TOKEN = FindingType(
    code="giveaway-token",
    scope="data",
    looks_for="One token decides the label, as where a program has written it beside the text: a model learns the token, and nothing else.",
    threshold=f"Its rows, at least {_LEAST_ROWS}, have one label in {_SURE:.0%} of cases, beyond chance (binomial test, p < {_P_VALUE:g} after Bonferroni); and it tells {_SHARE:.0%} of all that there is to know of the labels (mutual information over entropy), or is in {_COVERED:.0%} of the label's rows, or is in {_PARTLY_COVERED:.0%} of them and no word of a text: it is in one place, counted from the start or the end, in {_IN_PLACE:.0%} of its rows, or has letters and digits together or an underscore. Words that people use, such as `love`, or `contactless` of one kind of question, do not reach that.",
    remedy="Look at the rows; remove the token from the texts if it is not part of what people write.",
    sound="No single token gives the label away.",
    tasks=LABELED,
)


@dataclass(frozen=True, slots=True)
class Sure:
    """A token whose rows nearly all have one label.

    Args:
        token: in small letters.
        label: of its rows.
        rows: rows with the token.
        inside: those among them that have the label.
        labeled: rows with the label.
        information: mutual information of token and labels over the entropy of the labels, 0 to 1.
    """

    token: str
    label: str
    rows: int
    inside: int
    labeled: int
    information: float

    @property
    def decides(self) -> bool:
        """Whether this suffices, wherever in the texts the token is and whatever it looks like."""
        return self.information >= _SHARE or self.inside >= _COVERED * self.labeled

    @property
    def covers(self) -> bool:
        """Whether enough of the label's rows have it for a token that is not a word of a text."""
        return self.inside >= _PARTLY_COVERED * self.labeled

    def __str__(self) -> str:
        """Say in how many rows it is."""
        others = self.rows - self.inside
        return f"'{self.token}' is in {self.inside} of the {self.labeled} rows of '{self.label}' and in {others or 'none'} of the others"


def find_giveaways(facts: DataFacts) -> CheckResult | None:
    """Look for tokens that nearly always go with one label of train."""
    classes, texts = _classes(facts), facts.train.texts
    read = _sample(list(classes))
    found = giveaways([texts[row] for row in read], [classes[row] for row in read])
    if not found:
        return None
    tokens = {each.token for each in found}
    rows = [row for row in classes if tokens & _tokens(texts[row])]
    described = "; ".join(map(str, found[:_SHOWN]))
    return TOKEN.in_rows(
        f"{described}; {rows_in_words({'train': rows})} with it.", {"train": rows}
    )


def giveaways(texts: Sequence[str], labels: Sequence[str]) -> list[Sure]:
    """Find the tokens that give a label away, those that tell most of the labels first.

    Args:
        texts: of the rows.
        labels: of the rows, one each.
    """
    counts = Counter(labels)
    if len(counts) < 2:  # noqa: PLR2004 - nothing to give away
        return []
    rows = zip(texts, labels, strict=True)
    sure = _sure(
        Counter((token, label) for text, label in rows for token in _tokens(text)), counts
    )
    placed = _in_place({each.token for each in sure if each.covers}, texts)
    return [
        each
        for each in sure
        if each.decides or (each.covers and (each.token in placed or _NO_WORD.search(each.token)))
    ]


def _classes(facts: DataFacts) -> dict[int, str]:
    """Give each row of train one class: its label, its set of labels, or whether it is high."""
    rows = dict(facts.train.labeled())
    if facts.task_type.numeric:
        numbers = {row: number_of(label) for row, (label,) in rows.items()}
        values = {row: 0.0 if math.isnan(each) else each for row, each in numbers.items()}
        middle = sorted(values.values())[len(values) // 2] if values else 0.0
        return {row: "high" if value >= middle else "low" for row, value in values.items()}
    return {row: ", ".join(sorted(labels)) for row, labels in rows.items()}


def _sample(rows: list[int]) -> list[int]:
    """Draw from very many rows: every so manieth would miss a label where labels take turns."""
    if len(rows) <= _MOST_READ:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), size=_MOST_READ, replace=False)
    return [rows[place] for place in np.sort(chosen).tolist()]


def _tokens(text: str) -> set[str]:
    return set(_TOKEN.findall(text.casefold()))


def _sure(pairs: Counter[tuple[str, str]], labels: Counter[str]) -> list[Sure]:
    """List the tokens that nearly always go with one label, those that tell most of it first."""
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
        information = (uncertainty - left) / uncertainty
        found.append(Sure(token, label, rows[token], count, labels[label], information))
    return sorted(found, key=lambda each: -each.information)


def _in_place(tokens: set[str], texts: Iterable[str]) -> set[str]:
    """Return those of the tokens that are nearly always as far from the start, or from the end."""
    rows: Counter[str] = Counter()
    places: Counter[tuple[str, int]] = Counter()
    for text in texts:
        read = _TOKEN.findall(text.casefold())
        rows.update(tokens.intersection(read))
        for place, token in enumerate(read):
            if token in tokens:
                places[token, place] += 1
                places[token, place - len(read)] += 1
    return {token for (token, _), count in places.items() if count >= _IN_PLACE * rows[token]}


def _entropy(counts: Iterable[int]) -> float:
    values = [count for count in counts if count > 0]
    total = sum(values)
    return -sum(count / total * math.log2(count / total) for count in values) if total else 0.0
