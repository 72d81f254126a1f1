"""All checks that are made, each listed once."""

from __future__ import annotations

from collections.abc import Callable

from peftune.checks import (
    class_counts,
    duplicates,
    encoding,
    general_text,
    giveaways,
    label_values,
    language,
    leakage,
    markup,
    missing_text,
    numbers,
    truncation,
)
from peftune.checks.facts import DataFacts
from peftune.checks.result import Check, CheckResult

READABLE = Check(
    code="unusable-data",
    worst="fail",
    looks_for="Files, columns or rows cannot be used: not UTF-8, a row with too few cells, an open quote, a line that is no JSON, a column that is missing or there twice, one class alone, too few rows to hold any out.",
    rule="What a run would refuse, with place and remedy.",
    remedy="Mend the file, or the keys of data that name it.",
    sound="All rows can be read, split and learned.",
)

_ON_ROWS: tuple[tuple[Check, Callable[[DataFacts], CheckResult | None]], ...] = (
    (missing_text.EMPTY, missing_text.find_empty),
    (missing_text.PLACEHOLDER, missing_text.find_placeholders),
    (missing_text.ADDRESSES, missing_text.find_addresses),
    (missing_text.HEADER, missing_text.find_header),
    (missing_text.NUMBERS, missing_text.find_numbers),
    (label_values.MISSING, label_values.find_missing),
    (label_values.UNKNOWN, label_values.find_unknown),
    (label_values.LOOK_ALIKE, label_values.find_look_alikes),
    (label_values.HIDDEN, label_values.find_hidden),
    (label_values.PLACEHOLDER, label_values.find_placeholders),
    (label_values.MANY, label_values.find_many),
    (numbers.NO_NUMBER, numbers.find_no_numbers),
    (numbers.CONSTANT, numbers.find_constant),
    (numbers.OUTLIER, numbers.find_outliers),
    (class_counts.ABSENT_IN_TRAIN, class_counts.find_absent_in_train),
    (class_counts.ABSENT_IN_HELD_OUT, class_counts.find_absent_in_held_out),
    (class_counts.IMBALANCE, class_counts.find_imbalance),
    (class_counts.SHIFT, class_counts.find_shift),
    (leakage.EQUAL, leakage.find_equal),
    (leakage.NEAR, leakage.find_near),
    (leakage.GROUPS, leakage.find_groups),
    (general_text.SHARED, general_text.find_shared),
    (general_text.STAGES, general_text.find_staged),
    (duplicates.EQUAL, duplicates.find_equal),
    (duplicates.NEAR, duplicates.find_near),
    (duplicates.CONFLICT, duplicates.find_conflicts),
    (duplicates.IDS, duplicates.find_ids),
    (giveaways.TOKEN, giveaways.find_giveaways),
    (truncation.CUT, truncation.find_cut),
    (truncation.OVERLONG, truncation.find_overlong),
    (encoding.MISREAD, encoding.find_misread),
    (encoding.LOST, encoding.find_lost),
    (encoding.CONTROL, encoding.find_control),
    (encoding.UNSEEN, encoding.find_unseen),
    (encoding.ESCAPED, encoding.find_escaped),
    (markup.MARKUP, markup.find_html),
    (language.LANGUAGE, language.find_other),
)

CHECKS: tuple[Check, ...] = (READABLE, *(check for check, _ in _ON_ROWS))
"""What is looked for before training."""


def check_rows(facts: DataFacts) -> list[CheckResult]:
    """Make every check that makes sense for the task, in the order of the table."""
    return [find(facts) or check.passed() for check, find in _ON_ROWS if facts.kind in check.tasks]
