"""Score an artifact on labelled rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftune.artifacts import load
from peftune.artifacts.columns import columns_of, label_column_of
from peftune.artifacts.opened import open_artifact
from peftune.data.labelled import read_labelled
from peftune.diagnosis import Finding
from peftune.files.paths import given_path
from peftune.runs.seen import seen_by
from peftune.tasks.judge import judge
from peftune.tasks.learning import Learning


@dataclass(frozen=True, slots=True)
class Evaluation(Learning):
    """The score of an artifact on rows, with what stands in the way of believing it.

    Args:
        findings: such as rows that the artifact was trained on.
    """

    findings: Sequence[Finding] = ()


def evaluate(
    artifact: str | Path,
    file: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    empty_text: str = "error",
    base: str | None = None,
) -> Evaluation:
    """Load an artifact and score it on a file.

    Rows that it was trained on, or that chose its checkpoint, are scored too, and a finding and a
    line of the log say so.

    Args:
        artifact: an adapter or model folder.
        file: labelled rows; labels as ids or names of the artifact.
        text_column: column that holds the text, if not the one that was learned from.
        label_column: column that holds the label, if not the one that was learned from.
        empty_text: `error`, `drop` or `keep`: what to do with rows without text.
        base: where the base lies, if not under the name in the manifest.

    Raises:
        ArtifactError: the artifact is refused.
        DataError: the rows cannot be used.
    """
    opened, file = open_artifact(artifact), given_path(file, "file")
    manifest = opened.manifest
    rows = read_labelled(
        file,
        names=manifest.labels,
        kind=manifest.task_name,
        text=columns_of(manifest, text_column=text_column),
        label_column=label_column_of(manifest, label_column=label_column),
        empty_text=empty_text,
    )
    findings = seen_by(
        manifest,
        rows.texts,
        what=f"rows of '{file.name}'",
        consequence="the score says nothing of other rows",
    )
    classifier = load(opened.folder, base=base)
    learning = judge(
        classifier.logits(rows.texts),
        rows.labels,
        names=classifier.labels,
        split=file.name,
        kind=manifest.task_name,
        thresholds=manifest.label_thresholds,
    )
    values = {field.name: getattr(learning, field.name) for field in dataclasses.fields(learning)}
    return Evaluation(**values, findings=findings)
