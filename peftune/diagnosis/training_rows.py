"""Rows are scored that the model has seen in training."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.data.row_sketch import RowSketch
from peftune.diagnosis.finding import Finding, Pitfall

_SHARE = 0.1
_FEWEST = 3

PITFALL = Pitfall(
    code="seen-rows",
    scope="evaluation",
    looks_for="`peftune evaluate`, `predict --file` or `forget --probe` reads rows that the artifact was trained on, or that chose its checkpoint: what it makes of them says nothing of other rows.",
    threshold=f"At least {_SHARE:.0%} of the texts are among those of train and validation, and at least {_FEWEST} of them. It is read from the manifest, which holds hashes of a fixed sample of the texts; so of many rows the share is an estimate. Artifacts that peftune did not train know nothing of their rows.",
)


def seen_rows(
    texts: Sequence[str],
    trained_on: RowSketch | None,
    chosen_by: RowSketch | None,
    *,
    what: str,
    consequence: str,
) -> Finding | None:
    """Look whether texts were trained on, or chose the checkpoint.

    Args:
        texts: what is scored.
        trained_on: sketch of the training texts; None where it is not known.
        chosen_by: sketch of the validation texts.
        what: what the texts are called in the message, such as `rows of 'train.csv'`.
        consequence: what follows for the figures.
    """
    seen = [
        (word, sketch.share_of(texts), sketch.found_in(texts))
        for word, sketch in (("were trained on", trained_on), ("chose the checkpoint", chosen_by))
        if sketch is not None
    ]
    if sum(share for _, share, _ in seen) < _SHARE:
        return None
    if sum(count for _, _, count in seen) < min(_FEWEST, len(texts)):
        return None
    exact = all(sketch.whole for sketch in (trained_on, chosen_by) if sketch is not None)
    about = "" if exact else "about "
    parts = [f"{about}{share:.0%} {word}" for word, share, count in seen if count]
    return PITFALL.found(
        "warning",
        f"Of the {len(texts)} {what} {' and '.join(parts)}, so {consequence}.",
        "Score rows that took no part in training, such as those of data.test_file.",
    )
