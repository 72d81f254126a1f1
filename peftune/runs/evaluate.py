"""Score an artifact on labelled rows."""

from __future__ import annotations

from pathlib import Path

from peftune.artifacts import load
from peftune.artifacts.load import checked_manifest
from peftune.data.labelled import read_labelled
from peftune.seeds import stream_seed
from peftune.training.learning import Learning, judge


def evaluate(
    artifact: str | Path,
    file: str | Path,
    *,
    text_column: str = "text",
    label_column: str = "label",
    empty_text: str = "error",
    base: str | None = None,
) -> Learning:
    """Load an artifact and score it on a file.

    Args:
        artifact: an adapter or model folder.
        file: labelled rows; labels as ids or names of the artifact.
        text_column: column that holds the text.
        label_column: column that holds the label.
        empty_text: `error`, `drop` or `keep`: what to do with rows without text.
        base: where the base lies, if not under the name in the manifest.

    Raises:
        ArtifactError: the artifact is refused.
        DataError: the rows cannot be used.
    """
    rows = read_labelled(
        Path(file),
        names=checked_manifest(Path(artifact)).labels,
        text=text_column,
        label_column=label_column,
        empty_text=empty_text,
    )
    classifier = load(artifact, base=base)
    return judge(
        classifier.logits(rows.texts),
        rows.labels,
        names=classifier.labels,
        split=Path(file).name,
        seed=stream_seed(0, "bootstrap"),
    )
