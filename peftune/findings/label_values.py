"""Labels that are missing, unknown, or written in several ways."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from peftune.data.labels import label_key, number_of
from peftune.errors import suggestion
from peftune.findings.facts import DataFacts, SplitFacts, first_row, rows_in_words, some
from peftune.findings.finding import CLASSES, LABELED, CheckResult, FindingType
from peftune.recipe.data import hidden_in
from peftune.recipe.task_type import REGRESSION, SINGLE_LABEL

_NOTHING = re.compile(r"nan|null|n/a|#n/a|undefined|\?|-", re.IGNORECASE)
_UNSEEN = re.compile(
    r"[\s_\-\u00ad\u034f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]+"
)
_LIKE_LATIN = str.maketrans(
    "аеорсухіјѕԁһԛԝӏвкмнтɡοανρτυικεηІ",
    "aeopcyxijsdhqwlbkmhtgoavptuikenl",
)
_BINARY = {"0": "0", "false": "0", "1": "1", "true": "1"}
_SHOWN = 5
_FEW_ROWS = 20

MISSING = FindingType(
    code="missing-label",
    scope="data",
    worst="fail",
    looks_for="A row has no label.",
    threshold="Any row that is not left out.",
    remedy="Add the labels, or remove the rows.",
    sound="Every row has a label.",
    tasks=LABELED,
)
UNKNOWN = FindingType(
    code="unknown-label",
    scope="data",
    worst="fail",
    looks_for="A label is none of the names in `data.labels` or, without them, none of train: it cannot be learned or scored.",
    threshold="Any row.",
    remedy="Mend data.labels or the rows.",
    sound="Every label is known.",
    tasks=CLASSES,
)
LOOK_ALIKE = FindingType(
    code="look-alike-labels",
    scope="data",
    worst="fail",
    looks_for="One label is written in several ways (`pos`, `Pos`, ` pos`, a letter of another alphabet), which makes a class of each.",
    threshold="Two labels are equal without case, white space, hyphens, unseen characters and Unicode forms, and with Cyrillic and Greek letters taken for the Latin ones that they look like, or 0 and 1 stand beside false and true. Not where `data.labels` names them all. A warning where they are one number or one truth value, such as `1` and `1.0` or `True` and `true`, which are read as one label.",
    remedy="Write the label in one way, or name every one in data.labels.",
    sound="No two labels look alike.",
    tasks=CLASSES,
)
HIDDEN = FindingType(
    code="hidden-label",
    scope="data",
    worst="fail",
    looks_for="A label holds what no reader sees (a control character, a character without width, a tag, a mark that turns the direction of writing), is empty or blank, or begins or ends with a blank.",
    threshold="Any label, in `data.labels` or in a row. A warning for blanks at its ends; everything else is refused in an artifact. The joiners U+200C and U+200D may stand between characters beyond ASCII.",
    remedy="Write the label without it.",
    sound="All of every label can be seen.",
    tasks=CLASSES,
)
PLACEHOLDER = FindingType(
    code="placeholder-label",
    scope="data",
    looks_for="A program has written a word for nothing in the place of a label, which becomes a class: `nan`, `#N/A`, `null`.",
    threshold="The whole label is such a word, and `data.labels` does not name it.",
    remedy="Add the labels, or remove the rows; name the label in data.labels if it is one.",
    sound="No label is a placeholder.",
    tasks=CLASSES,
)
MANY = FindingType(
    code="many-labels",
    scope="data",
    looks_for="The label column holds something else than classes, such as ids, texts or measured numbers.",
    threshold=f"More different labels than half of the training rows, of at least {_FEW_ROWS}.",
    remedy="Check data.label_column; for measured numbers set task: regression.",
    sound="Labels repeat, as classes do.",
    tasks=(SINGLE_LABEL.name,),
)


def find_missing(facts: DataFacts) -> CheckResult | None:
    """Look for rows without label."""
    rows = {
        name: [
            row
            for row, labels in enumerate(split.labels)
            if labels is None and row not in split.left_out
        ]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    return MISSING.in_rows(f"{rows_in_words(rows)} without a label.", rows)


def find_unknown(facts: DataFacts) -> CheckResult | None:
    """Look for labels that are none."""
    names = facts.names if facts.names is not None else tuple(facts.label_counts["train"])
    known = set(names)
    rows: dict[str, list[int]] = {}
    unknown: dict[str, None] = {}
    for name, split in facts.splits.items():
        for row, labels in split.labeled():
            strange = [label for label in labels if label not in known]
            if strange:
                rows.setdefault(name, []).append(row)
                unknown |= dict.fromkeys(strange)
    if not rows:
        return None
    first = next(iter(unknown))
    return UNKNOWN.in_rows(
        f"{rows_in_words(rows)} with {_listed(unknown)}, not among the labels. {suggestion(first, names)}",
        rows,
    )


def find_look_alikes(facts: DataFacts) -> CheckResult | None:
    """Look for labels that differ in what a reader does not see."""
    written: dict[str, dict[str, int]] = {}
    seen = _seen_among({label for counts in facts.label_counts.values() for label in counts})
    for counts in facts.label_counts.values():
        for label, count in counts.items():
            forms = written.setdefault(seen(label), {})
            forms[label] = forms.get(label, 0) + count
    named = set(facts.section.labels or ())
    rare: dict[str, str] = {}
    for forms in written.values():
        common = max(forms, key=lambda label: (label in named, forms[label]))
        rare |= {label: common for label in forms if label != common and label not in named}
    rows = _rows_with(facts, rare)
    if not some(rows):
        return _one_label_in_several_spellings(facts)
    shown = [f"{_shown(label)} beside {_shown(common)}" for label, common in rare.items()]
    return LOOK_ALIKE.in_rows(f"{rows_in_words(rows)} with {', '.join(shown[:_SHOWN])}.", rows)


def _one_label_in_several_spellings(facts: DataFacts) -> CheckResult | None:
    """Tell of labels that are read as one although they are written in several ways."""
    ways: dict[str, dict[str, None]] = {}
    for split in facts.splits.values():
        for row, labels in split.labeled():
            for label in labels:
                ways.setdefault(label, {})[split.respelled.get(row, label)] = None
    several = {label: forms for label, forms in ways.items() if len(forms) > 1}
    rows = {
        name: [
            row
            for row, labels in split.labeled()
            if row in split.respelled and several.keys() & labels
        ]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    shown = ", ".join(" and ".join(map(_shown, sorted(forms))) for forms in several.values())
    return LOOK_ALIKE.in_rows(
        f"{rows_in_words(rows)} with a label in another spelling, read as one: {shown}.",
        rows,
        status="warn",
    )


def find_hidden(facts: DataFacts) -> CheckResult | None:
    """Look for labels of which a part is not seen."""
    labels = dict.fromkeys(
        [*(facts.names or ()), *(label for each in facts.label_counts.values() for label in each)]
    )
    hidden = {label: why for label in labels if (why := hidden_in(label))}
    if hidden:
        shown = [f"{label!a} {why}" for label, why in hidden.items()]
        return HIDDEN.in_rows(f"{', '.join(shown[:_SHOWN])}.", _rows_with(facts, hidden))
    blank = [label for label in labels if label != label.strip()]
    if blank:
        message = f"{_listed(blank)} with a blank at one end."
        return HIDDEN.in_rows(message, _rows_with(facts, blank), status="warn")
    return None


def find_placeholders(facts: DataFacts) -> CheckResult | None:
    """Look for words that stand for no label."""
    named = set(facts.section.labels or ())
    labels = dict.fromkeys(label for counts in facts.label_counts.values() for label in counts)
    nothing = [
        label for label in labels if _NOTHING.fullmatch(label.strip()) and label not in named
    ]
    rows = _rows_with(facts, nothing)
    if not some(rows):
        return None
    return PLACEHOLDER.in_rows(f"{rows_in_words(rows)} with {_listed(nothing)} as label.", rows)


def find_many(facts: DataFacts) -> CheckResult | None:
    """Check whether the labels are classes at all."""
    counts = facts.label_counts["train"]
    rows = sum(counts.values())
    if rows < _FEW_ROWS or 2 * len(counts) <= rows:
        return None
    return MANY.in_rows(
        f"{rows} training rows have {len(counts)} different labels, such as {_listed(list(counts)[:3])}.",
        {},
    )


def _seen_among(labels: set[str]) -> Callable[[str], str]:
    """Return what a reader takes a label for; among 0 and 1, a truth value is one of them."""
    if {label_key(label) for label in labels} <= _BINARY.keys():
        return lambda label: _BINARY[label_key(label)]
    return _seen


def _seen(label: str) -> str:
    """Return what a reader takes a label for."""
    plain = unicodedata.normalize("NFKC", label).casefold()
    return _UNSEEN.sub("", plain).translate(_LIKE_LATIN)


def _shown(label: str) -> str:
    """Quote a label; characters beyond ASCII that could be taken for others are spelled out."""
    strange = not label.isascii() and not label.isprintable()
    homoglyph = label.translate(_LIKE_LATIN) != label
    return ascii(label) if strange or homoglyph else repr(label)


def _listed(labels: Iterable[str]) -> str:
    found = [_shown(label) for label in labels]
    return ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")


def _rows_with(facts: DataFacts, labels: Iterable[str]) -> dict[str, list[int]]:
    wanted = set(labels)
    if not wanted:
        return {}
    return {
        name: [row for row, found in split.labeled() if wanted.intersection(found)]
        for name, split in facts.splits.items()
    }


_FAR = 20.0

NO_NUMBER = FindingType(
    code="label-no-number",
    scope="data",
    worst="fail",
    looks_for="A label of a regression is not a finite number.",
    threshold="Any row.",
    remedy="Mend the labels, or check data.label_column.",
    sound="Every label is a number.",
    tasks=(REGRESSION.name,),
)
CONSTANT = FindingType(
    code="constant-label",
    scope="data",
    worst="fail",
    looks_for="All labels of a split are the same number, so there is nothing to learn or to correlate.",
    threshold="One value in all rows of a split.",
    remedy="Check data.label_column.",
    sound="The labels vary.",
    tasks=(REGRESSION.name,),
)
OUTLIER = FindingType(
    code="label-outlier",
    scope="data",
    looks_for="A label lies so far out that it decides the squared error, as with a lost decimal point or a 999 for nothing.",
    threshold=f"More than {_FAR:g} times as far from the median of train as the middle half is wide.",
    remedy="Mend the labels, or remove the rows.",
    sound="No label lies far out.",
    tasks=(REGRESSION.name,),
)


def find_no_numbers(facts: DataFacts) -> CheckResult | None:
    """Look for labels that are not numbers."""
    rows = {
        name: [row for row, value in _values(split) if not math.isfinite(value)]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    split, row = first_row(rows)
    label = (facts.splits[split].labels[row] or ("",))[0]
    return NO_NUMBER.in_rows(
        f"{rows_in_words(rows)} whose label is not a number, such as '{label}'.", rows
    )


def find_constant(facts: DataFacts) -> CheckResult | None:
    """Look for splits in which nothing varies."""
    constant = {}
    for name, split in facts.splits.items():
        values = {value for _, value in _values(split) if math.isfinite(value)}
        if len(values) == 1:
            constant[name] = values.pop()
    if not constant:
        return None
    described = "; ".join(
        f"every label of {split} is {value:g}" for split, value in constant.items()
    )
    return CONSTANT.in_rows(f"{described[0].upper()}{described[1:]}.", {})


def find_outliers(facts: DataFacts) -> CheckResult | None:
    """Look for labels far out."""
    train = np.array([value for _, value in _values(facts.train) if math.isfinite(value)])
    if not len(train):
        return None
    low, middle, high = np.percentile(train, [25, 50, 75])
    limit = _FAR * (high - low)
    if not limit:
        return None
    rows = {
        name: [
            row
            for row, value in _values(split)
            if math.isfinite(value) and abs(value - middle) > limit
        ]
        for name, split in facts.splits.items()
    }
    if not some(rows):
        return None
    return OUTLIER.in_rows(
        f"{rows_in_words(rows)} more than {limit:g} away from the median, {middle:g}.", rows
    )


def _values(split: SplitFacts) -> list[tuple[int, float]]:
    return [(row, number_of(labels[0])) for row, labels in split.labeled() if labels]
