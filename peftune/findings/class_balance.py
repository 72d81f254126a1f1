"""How many rows each label has, in every split."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2_contingency

from peftune.findings.facts import DataFacts, RunFacts
from peftune.findings.finding import CLASSES, CheckResult, Finding, FindingType
from peftune.recipe.task_type import SINGLE_LABEL

_RATIO = 10.0
_DISTANCE = 0.1
_P_VALUE = 1e-3
_SHOWN = 5

ABSENT_IN_TRAIN = FindingType(
    code="label-not-in-train",
    scope="data",
    looks_for="A label has no training rows, so it cannot be learned.",
    threshold="A name of `data.labels`, or a label column, with no row in train.",
    remedy="Add rows with the label, or take it out of data.labels.",
    sound="Every label has training rows.",
    tasks=CLASSES,
)
ABSENT_IN_HELD_OUT = FindingType(
    code="label-not-held-out",
    scope="data",
    looks_for="A label of train has no rows in a held-out split, so nobody learns whether it is found.",
    threshold="No row in a given validation or test split.",
    remedy="Add rows with the label to that split, or leave the split away: peftune then holds out some of every label.",
    sound="Every label is in every split.",
    tasks=CLASSES,
)
IMBALANCE = FindingType(
    code="class-imbalance",
    scope="data",
    looks_for="A label is so rare that the accuracy hardly depends on it.",
    threshold=f"The most frequent label has at least {_RATIO:g} times the training rows of the rarest.",
    remedy="Read macro F1 and the recall of each label, set training.class_weights: balanced, or add rows.",
    sound="No label is rare beside another.",
    tasks=(SINGLE_LABEL.name,),
)
SHIFT = FindingType(
    code="label-shift",
    scope="data",
    looks_for="The labels of a held-out split are not mixed as in train, as where a sorted file was cut in two.",
    threshold=f"Shares of labels that differ by more than {_DISTANCE:.0%} in all (total variation), beyond chance (chi-squared test, p < {_P_VALUE:g}).",
    remedy="Draw the splits at random, or leave them away: peftune then holds out the same share of every label.",
    sound="The labels are mixed alike in every split.",
    tasks=(SINGLE_LABEL.name,),
)


def find_absent_in_train(facts: DataFacts) -> CheckResult | None:
    """Look for names without training rows."""
    counts = facts.label_counts["train"]
    absent = [name for name in facts.names or () if not counts.get(name)]
    if not absent:
        return None
    return ABSENT_IN_TRAIN.in_rows(f"Train has no row with {_listed(absent)}.", {})


def find_absent_in_held_out(facts: DataFacts) -> CheckResult | None:
    """Look for labels that a held-out split lacks."""
    learned = _known(facts)
    absent = {
        split: [label for label in learned if not counts.get(label)]
        for split, counts in facts.label_counts.items()
        if split != "train" and counts
    }
    if not any(absent.values()):
        return None
    described = [
        f"{split} has no row with {_listed(labels)}" for split, labels in absent.items() if labels
    ]
    message = "; ".join(described)
    return ABSENT_IN_HELD_OUT.in_rows(f"{message[0].upper()}{message[1:]}.", {})


def find_imbalance(facts: DataFacts) -> CheckResult | None:
    """Look for a rare label of train."""
    counts = _known(facts)
    if len(counts) < 2:  # noqa: PLR2004 - one label is another fault
        return None
    rarest, commonest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[commonest] < _RATIO * counts[rarest]:
        return None
    rows = [row for row, labels in facts.train.labeled() if labels == (rarest,)]
    return IMBALANCE.in_rows(
        f"'{rarest}' has {counts[rarest]} of {sum(counts.values())} training rows and '{commonest}' {counts[commonest]}.",
        {"train": rows},
    )


def find_shift(facts: DataFacts) -> CheckResult | None:
    """Compare the shares of labels of each held-out split with those of train."""
    train = facts.label_counts["train"]
    found = []
    for split, counts in facts.label_counts.items():
        labels = sorted({*train, *counts})
        table = np.array([[side.get(label, 0) for label in labels] for side in (train, counts)])
        if split == "train" or len(labels) < 2 or not table.sum(axis=1).all():  # noqa: PLR2004 - nothing to mix
            continue
        shares = table / table.sum(axis=1, keepdims=True)
        distance = float(np.abs(shares[0] - shares[1]).sum()) / 2
        if distance > _DISTANCE and chi2_contingency(table).pvalue < _P_VALUE:
            most = labels[int(np.abs(shares[0] - shares[1]).argmax())]
            place = labels.index(most)
            found.append(
                f"'{most}' is {shares[1][place]:.0%} of {split} and {shares[0][place]:.0%} of train"
            )
    return SHIFT.in_rows(f"{'; '.join(found)}.", {}) if found else None


def _known(facts: DataFacts) -> dict[str, int]:
    """Count the training rows of each label that is one; an unknown one is another fault."""
    counts, names = facts.label_counts["train"], facts.names
    return {label: count for label, count in counts.items() if names is None or label in names}


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(f"'{label}'" for label in labels[:_SHOWN]) + more


_MISSED = 0.5

CLASS_IMBALANCE = FindingType(
    code="class-imbalance",
    scope="run",
    looks_for="A label is so rare that the accuracy hardly depends on it.",
    threshold=f"The most frequent label has at least {_RATIO:g} times the training rows of the rarest: of two labels, always naming the frequent one is then right in 10 of 11. A warning where less than {_MISSED:.0%} of the rarest label's rows were found, else a note.",
)


def find_class_imbalance(facts: RunFacts) -> Finding | None:
    """Look for a rare label, and how often it was found."""
    counts = facts.train_labels
    if not facts.learning.task_type.one_label:
        return None
    rarest, commonest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[commonest] < _RATIO * counts[rarest]:
        return None
    scored = facts.learning.per_label[rarest]
    if scored["support"]:
        found = f"of its {scored['support']:.0f} {facts.learning.split} rows {scored['recall']:.0%} were found"
    else:
        found = f"it has no {facts.learning.split} rows, so nobody knows whether it is found"
    missed = not scored["support"] or scored["recall"] < _MISSED
    return CLASS_IMBALANCE.found(
        "warning" if missed else "note",
        f"The label '{rarest}' has {counts[rarest]} of {facts.train_rows} training rows ({counts[rarest] / facts.train_rows:.1%}) and '{commonest}' {counts[commonest]}; {found}.",
        f"Read macro F1 and the recall of each label beside the accuracy, keep training.metric_for_best_model: macro_f1, and add rows with the label '{rarest}'.",
    )
