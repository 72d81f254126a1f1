"""What a run folder holds beside the report: every scored row, and every document of the probes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.data.rows import Rows
from peftune.errors import OutputFolderError
from peftune.forgetting.measure import ProbeText
from peftune.probes import Measurement
from peftune.runs.folder import PREDICTIONS, read_run, write_lines
from peftune.runs.measured import Measured
from peftune.runs.report import Run

DOCUMENTS = "documents.jsonl"
TEXTS = "texts.jsonl"
_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The rows of the final score.

    Args:
        ids: what the source calls each row.
        texts: one text a row.
        names: label names in the order of their ids; these four are empty where a row has not
            just one label.
        labels: label ids, (rows,).
        predicted: label ids, (rows,).
        probabilities: (rows, labels), float64.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    names: Sequence[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """One probe on every document; the value of any set of them is a ratio of sums.

    Args:
        before: the base's numerator for each document, (documents,), float64.
        after: the tuned model's, (documents,), float64.
        weight: the denominator, such as bytes, (documents,), float64.
        excerpts: the beginning of each document.
        higher_is_better: whether a larger value is a better one.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    weight: NDArray[np.float64]
    excerpts: Sequence[str]
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """A finished run with all that its numbers rest on.

    Args:
        run: the report.
        rows: the scored rows.
        documents: by probe name.
    """

    run: Run
    rows: ScoredRows
    documents: Mapping[str, DocumentScores]


def write_evidence(
    rows: Rows, texts: Sequence[ProbeText], measured: Measured, folder: Path
) -> None:
    """Write what each scored row says, and each document's sums before and after.

    Args:
        rows: the rows of the final score; `predictions.jsonl` has what became of them.
        texts: probes with their documents.
        measured: the base and the tuned model on them.
        folder: the run folder.
    """
    said = ({"id": row, "text": text} for row, text in zip(rows.ids, rows.texts, strict=True))
    write_lines(said, folder / TEXTS)
    write_lines(_document_lines(texts, measured), folder / DOCUMENTS)


def _document_lines(texts: Sequence[ProbeText], measured: Measured) -> Iterator[dict[str, Any]]:
    starts: Sequence[Measurement | None] = measured.before.start or [None] * len(texts)
    for text, before, start, after in zip(
        texts, measured.before.measured, starts, measured.after, strict=True
    ):
        for index in np.flatnonzero(after.weight):
            yield {
                "probe": text.label,
                "document": int(index),
                "before": float(before.total[index]),
                **({} if start is None else {"start": float(start.total[index])}),
                "after": float(after.total[index]),
                "weight": float(after.weight[index]),
                "excerpt": _excerpt(text.documents[index]),
            }


def _excerpt(document: Any) -> str:  # noqa: ANN401 - a string or a tuple of parts
    text = document if isinstance(document, str) else " / ".join(map(str, document))
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"


def read_evidence(folder: str | Path) -> Evidence:
    """Read a finished run with its rows and documents.

    Raises:
        UsageError: the folder holds no finished run.
        OutputFolderError: a file of it is missing or damaged.
    """
    run = read_run(folder)
    try:
        return Evidence(run, _rows(run), _documents(run))
    except (OSError, ValueError, LookupError, TypeError) as error:
        message = f"'{run.folder}' is no whole run folder ({type(error).__name__}: {error}). Remove it and run it again."
        raise OutputFolderError(message) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines of a run folder."""
    # Not `splitlines`: a text may hold characters that it takes for ends of lines.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _rows(run: Run) -> ScoredRows:
    lines = read_lines(run.folder / PREDICTIONS)
    if run.learning.task != "single-label":
        return _without_answers(run, lines)
    names = tuple(run.learning.per_label)
    probabilities = [[line["probabilities"][name] for name in names] for line in lines]
    return ScoredRows(
        ids=[line["id"] for line in lines],
        texts=[line["text"] for line in read_lines(run.folder / TEXTS)],
        names=names,
        labels=np.array([names.index(line["label"]) for line in lines]),
        predicted=np.array([names.index(line["predicted"]) for line in lines]),
        probabilities=np.array(probabilities, dtype=np.float64),
    )


def _without_answers(run: Run, lines: Sequence[Mapping[str, Any]]) -> ScoredRows:
    texts = [line["text"] for line in read_lines(run.folder / TEXTS)]
    none = np.zeros(0, dtype=np.int64)
    return ScoredRows(
        [line["id"] for line in lines], texts, (), none, none, np.zeros((0, 0), dtype=np.float64)
    )


def _documents(run: Run) -> dict[str, DocumentScores]:
    lines = read_lines(run.folder / DOCUMENTS)
    found = {}
    for probe in run.forgetting:
        mine = [line for line in lines if line["probe"] == probe.name]
        sums = {
            key: np.array([line[key] for line in mine], dtype=np.float64)
            for key in ("before", "after", "weight")
        }
        excerpts = [line["excerpt"] for line in mine]
        found[probe.name] = DocumentScores(
            **sums, excerpts=excerpts, higher_is_better=probe.higher_is_better
        )
    return found
