"""Score an artifact on labelled rows."""

from __future__ import annotations

from pathlib import Path

from peftune.artifacts import load
from peftune.data.rows import check_rows
from peftune.data.tables import column, read_file
from peftune.errors import UsageError
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
    if empty_text not in ("error", "drop", "keep"):
        message = f"empty_text must be error, drop or keep (got '{empty_text}')."
        raise UsageError(message)
    path = Path(file)
    table = read_file(path)
    texts = column(table, text_column, source=f"'{path.name}'")
    labels = column(table, label_column, source=f"'{path.name}'")
    classifier = load(artifact, base=base)
    rows, _ = check_rows(
        texts,
        labels,
        ids=None,
        names=classifier.labels,
        empty_text=empty_text,
        source=f"'{path.name}'",
    )
    return judge(
        classifier.logits(rows.texts),
        rows.labels,
        names=classifier.labels,
        split=path.name,
        seed=stream_seed(0, "bootstrap"),
    )
