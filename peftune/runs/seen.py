"""What an artifact's manifest knows of the rows that it was trained on and chosen by."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from peftune.artifacts.columns import cleaned_for
from peftune.artifacts.manifest import Manifest
from peftune.data.row_sketch import RowSketch
from peftune.diagnosis import Finding, seen_rows
from peftune.errors import ArtifactError

logger = logging.getLogger(__name__)


def seen_by(
    manifest: Manifest, texts: Sequence[str], *, what: str, consequence: str
) -> list[Finding]:
    """Look whether an artifact has seen texts in training; what is found is logged.

    Args:
        manifest: of the artifact.
        texts: what is scored.
        what: what the texts are called in the message.
        consequence: what follows for the figures.

    Raises:
        ArtifactError: the manifest holds something else in the place of a sketch.
    """
    trained_on, chosen_by = (_sketch(manifest.task, split) for split in ("train", "validation"))
    # What was sketched are texts as they were learned from, after cleaning.
    read = cleaned_for(manifest, texts)
    found = seen_rows(read, trained_on, chosen_by, what=what, consequence=consequence)
    if found is None:
        return []
    logger.warning("%s: %s %s", found.severity, found.message, found.advice)
    return [found]


def _sketch(task: Mapping[str, Any] | None, split: str) -> RowSketch | None:
    """Read the sketch of a split; None where the artifact knows nothing of its rows."""
    try:
        written = (((task or {}).get("trained_on") or {}).get("sketches") or {}).get(split)
        return None if written is None else RowSketch.parse(written)
    except (AttributeError, ValueError) as error:
        message = f"The manifest is damaged: task.trained_on.sketches.{split} is not a sketch of texts. Fetch the artifact again."
        raise ArtifactError(message) from error
