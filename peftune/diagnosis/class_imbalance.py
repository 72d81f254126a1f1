"""One label is rare."""

from __future__ import annotations

from peftune.diagnosis.finding import Facts, Finding, Pitfall

_RATIO = 10.0
_MISSED = 0.5

PITFALL = Pitfall(
    code="class-imbalance",
    scope="run",
    looks_for="A label is so rare that the accuracy hardly depends on it.",
    threshold=f"The most frequent label has at least {_RATIO:g} times the training rows of the rarest: of two labels, always naming the frequent one is then right in 10 of 11. A warning where less than {_MISSED:.0%} of the rarest label's rows were found, else a note.",
)


def find_class_imbalance(facts: Facts) -> Finding | None:
    """Look for a rare label, and how often it was found."""
    counts = facts.train_labels
    if facts.learning.task != "single-label":
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
    return PITFALL.found(
        "warning" if missed else "note",
        f"The label '{rarest}' has {counts[rarest]} of {facts.train_rows} training rows ({counts[rarest] / facts.train_rows:.1%}) and '{commonest}' {counts[commonest]}; {found}.",
        f"Read macro F1 and the recall of each label beside the accuracy, keep training.metric_for_best_model: macro_f1, and add rows with the label '{rarest}'.",
    )
