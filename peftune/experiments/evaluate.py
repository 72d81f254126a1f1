"""Score an artifact on labeled rows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.adapters import load
from peftune.adapters.artifact import open_artifact
from peftune.adapters.classifier import cleaned_for, columns_of, label_column_of
from peftune.adapters.manifest import Manifest
from peftune.data.task_data import read_labeled
from peftune.data.text_hashes import RowSketch
from peftune.display import Block, Displayed
from peftune.errors import ArtifactError
from peftune.files.reading import given_path
from peftune.findings.evidence import seen_rows
from peftune.findings.finding import Finding
from peftune.progress import working
from peftune.stats.formats import with_interval
from peftune.tasks import methods_of
from peftune.tasks.scores import Learning, headline_scores

logger = logging.getLogger(__name__)


def seen_by(
    manifest: Manifest, texts: Sequence[str], *, what: str, consequence: str
) -> list[Finding]:
    """Check whether texts were in an artifact's training data, and log the findings.

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


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation(Displayed, Learning):
    """The score of an artifact on rows, with findings that limit it.

    Args:
        findings: such as rows that the artifact was trained on.
    """

    findings: Sequence[Finding] = ()

    def _blocks(self) -> Iterator[Block]:
        yield f"Scores on {self.n} rows of {self.split}; 95% intervals over rows, of this one model"
        yield [
            {"": score.title, "value": with_interval(score.value, score.interval, ".3f")}
            for score in headline_scores(self)
        ]
        if self.per_label:
            yield [
                {"label": name, **{key: f"{value:.3g}" for key, value in scores.items()}}
                for name, scores in self.per_label.items()
            ]
        yield "\n".join(f"{found.severity}: {found.message}" for found in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return dataclasses.asdict(self)


@working("evaluating")
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
        file: labeled rows; labels as ids or names of the artifact.
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
    rows = read_labeled(
        file,
        names=manifest.labels,
        task_name=manifest.task_name,
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
    learning = methods_of(manifest.task_name).score(
        classifier.logits(rows.texts),
        rows.labels,
        names=classifier.labels,
        split=file.name,
        thresholds=manifest.label_thresholds,
    )
    values = {field.name: getattr(learning, field.name) for field in dataclasses.fields(learning)}
    return Evaluation(**values, findings=findings)
