"""The parts of a model card that say what an artifact is good for, and what it learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peftune.escaping import markdown_code
from peftune.models.prepare import Preparation
from peftune.recipe.task import TaskName, has_head

_GIVES: dict[TaskName, str] = {
    "single-label": "It is meant for texts like those it learned from. It gives every text one of its labels, also a text that none of them fits.",
    "multi-label": "It is meant for texts like those it learned from. It gives a text any number of its labels, and none where none is probable enough.",
    "regression": "It is meant for texts like those it learned from. It gives every text a number, also one beyond the numbers it learned from.",
    "language-modeling": "It is meant as the start of further training in the domain whose texts it learned from. It writes like those texts, and what it writes need not be true.",
}
_SCORES = "A probability that it gives is no chance of being right until it is compared with rows of your own."
_INT8 = "It was trained on a base in 8 bits. On the base in float32 its numbers differ a little; `peftune adapter verify` says by how much."
_INTENT = "The checks of `peftune.load` tell that these are the files that were saved and that they belong to this base. They do not tell what its maker trained it for."


def limits(
    preparation: Preparation,
    precision: str,
    forgetting: Sequence[Mapping[str, Any]] | None,
) -> Iterator[str]:
    """Say what an artifact is for, and where that ends.

    Args:
        preparation: what is known of the model.
        precision: of the base that it was trained on.
        forgetting: probe results of the run that made it, if any.
    """
    yield _GIVES[preparation.task]
    yield f"It reads the first {preparation.max_length} tokens of a text; what comes after is not seen."
    if preparation.task in ("single-label", "multi-label"):
        yield _SCORES
    yield (
        "Use it for nothing but its task: what it forgot of the base's abilities stands above."
        if forgetting
        else "Use it for nothing but its task: what it forgot of the base's abilities was not measured."
    )
    yield "What the base had learned it still knows: its mistakes and prejudices come from there too."
    if precision == "int8":
        yield _INT8
    yield _INTENT


def provenance(preparation: Preparation, task: Mapping[str, Any] | None) -> Iterator[str]:
    """Say what an artifact was made of, by names where they tell and by hashes always.

    Args:
        preparation: what is known of the model.
        task: scores of the run that made it, if any, with what it learned from.
    """
    base, start = preparation.base, preparation.start
    revision = f" at revision {markdown_code(base.revision)}" if base.revision else ""
    yield f"Base: {markdown_code(base.name)}{revision}, whose weights have the fingerprint `{preparation.base_fingerprint}`."
    if start is not None:
        yield f"It began as the {start.task} artifact whose `peftune.json` has the `sha256` `{start.sha256}`."
    learned = None if task is None else task.get("trained_on")
    if task is None or not learned:
        yield "Data: not recorded, for it was saved outside a run of peftune."
        return
    rows = "rows" if has_head(preparation.task) else "documents"
    name = f"{markdown_code(str(task['data']))}, " if task.get("data") else ""
    yield f"Data: {name}{learned['rows']} training {rows}; all splits together have the fingerprint `{learned['data_fingerprint']}`. No row of them is in this folder."
