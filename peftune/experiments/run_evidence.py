"""Evidence of a run: the evaluation rows and the documents of the probes, in its folder."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftune.data.rows import Rows
from peftune.errors import OutputFolderError, UsageError
from peftune.experiments.report import Forgetting, Run
from peftune.experiments.run_folder import PREDICTIONS, read_own_text, read_run, write_lines
from peftune.forgetting.before_and_after import Measured
from peftune.forgetting.measurement import ProbeText
from peftune.probes import Measurement
from peftune.tasks.scores import Learning, learned_something

DOCUMENTS = "documents.jsonl"
TEXTS = "texts.jsonl"
_EXCERPT = 200


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The rows of the final score.

    Args:
        ids: id of each row in its source.
        texts: one text a row.
        names: label names in the order of their ids; it and the next three are empty where a row has not
            just one label.
        labels: label ids, (rows,).
        predicted: label ids, (rows,).
        probabilities: (rows, labels), float64.
        leaked: whether the row's text was read in training, or chose the checkpoint, (rows,); for
            a run of an earlier version, from the results of its checks.
        baselines: label ids that the baselines of the run gave, (rows,) each, by name; empty where
            they were not kept.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    names: Sequence[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    leaked: NDArray[np.bool_]
    baselines: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def without(self, leaked: NDArray[np.bool_]) -> ScoredRows:
        """Return the rows that did not leak, (rows,)."""
        kept = np.flatnonzero(~leaked).tolist()
        return ScoredRows(
            ids=[self.ids[row] for row in kept],
            texts=[self.texts[row] for row in kept],
            names=self.names,
            labels=self.labels[kept],
            predicted=self.predicted[kept],
            probabilities=self.probabilities[kept],
            leaked=self.leaked[kept],
            baselines={name: of[kept] for name, of in self.baselines.items()},
        )


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
    """A finished run with the rows and documents that its numbers are computed from.

    Args:
        run: the report.
        rows: the scored rows.
        documents: by probe name.
    """

    run: Run
    rows: ScoredRows
    documents: Mapping[str, DocumentScores]


def write_evidence(
    rows: Rows,
    texts: Sequence[ProbeText],
    measured: Measured,
    folder: Path,
    notes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the text of each evaluation row, and each document's sums before and after.

    Args:
        rows: the rows of the final score; `predictions.jsonl` has what became of them.
        texts: probes with their documents.
        measured: the base and the tuned model on them.
        folder: the run folder.
        notes: further values of each row beside its text.
    """
    lines = (
        {"id": row, "text": text, **note}
        for row, text, note in zip(
            rows.ids, rows.texts, notes or repeat({}, len(rows)), strict=True
        )
    )
    write_lines(lines, folder / TEXTS)
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
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message = f"'{run.folder}' is not a whole run folder ({type(error).__name__}: {error}). Remove it and run it again."
        raise OutputFolderError(message) from error


def refuse_mixed_runs(evidence: Sequence[Evidence], *, advice: str) -> None:
    """Refuse runs whose numbers cannot be set side by side.

    Args:
        evidence: finished runs.
        advice: the next step where their rows differ.

    Raises:
        UsageError: two runs have the same strategy and seed, or runs differ in their rows.
    """
    seen: dict[tuple[str, int], Run] = {}
    for run in (one.run for one in evidence):
        key = (run.run.strategy, run.run.seed)
        if other := seen.get(key):
            message = f"'{other.folder}' and '{run.folder}' are both runs of '{key[0]}' with seed {key[1]}. Leave one of them out."
            raise UsageError(message)
        seen[key] = run
    for one in evidence[1:]:
        if not _same_rows(evidence[0], one):
            message = f"'{evidence[0].run.folder}' and '{one.run.folder}' do not have the same rows, so they cannot be compared. {advice}"
            raise UsageError(message)


def _same_rows(first: Evidence, other: Evidence) -> bool:
    return (
        first.run.run.data_fingerprint == other.run.run.data_fingerprint
        and list(first.rows.ids) == list(other.rows.ids)
        and np.array_equal(first.rows.labels, other.rows.labels)
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines of a run folder.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not a JSON object.
        RecursionError: a line is nested as nothing that peftune writes.
    """
    # Not `splitlines`: a text may hold characters that it takes for ends of lines.
    lines = read_own_text(path).split("\n")
    if lines[-1]:
        message = f"{path.name} does not end with a whole line"
        raise ValueError(message)
    found = [json.loads(line) for line in lines if line]
    if not all(isinstance(line, dict) for line in found):
        message = f"a line of {path.name} is not a JSON object"
        raise ValueError(message)
    return found


def _typed(line: Mapping[str, Any], key: str, *kinds: type) -> Any:  # noqa: ANN401 - one of the kinds
    """Return a value of a line, if it is of a kind."""
    if type(line[key]) not in kinds:
        names = " or ".join(kind.__name__ for kind in kinds)
        message = f"'{key}' of a line is {str(line[key])[:80]!r}, and must be {names}"
        raise TypeError(message)
    return line[key]


def _finite(line: Mapping[str, Any], key: str) -> float:
    value = float(_typed(line, key, int, float))
    if not math.isfinite(value):
        message = f"'{key}' of a line is {value}"
        raise ValueError(message)
    return value


def _refuse_other_count(found: int, expected: int, name: str) -> None:
    if found != expected:
        message = f"{name} has {found} lines, and its report speaks of {expected}"
        raise ValueError(message)


def _rows(run: Run) -> ScoredRows:
    lines, written = read_lines(run.folder / PREDICTIONS), read_lines(run.folder / TEXTS)
    _refuse_other_count(len(lines), run.learning.n, PREDICTIONS)
    _refuse_other_count(len(written), run.learning.n, TEXTS)
    leaked = _leaked(run, written)
    if not run.learning.task_type.one_label:
        return _without_answers(lines, written, leaked)
    names = tuple(run.learning.per_label)
    probabilities = [[_finite(line["probabilities"], name) for name in names] for line in lines]
    return ScoredRows(
        ids=[_typed(line, "id", str) for line in lines],
        texts=[_typed(line, "text", str) for line in written],
        names=names,
        labels=np.array([names.index(line["label"]) for line in lines]),
        predicted=np.array([names.index(line["predicted"]) for line in lines]),
        probabilities=np.array(probabilities, dtype=np.float64),
        leaked=leaked,
        baselines={
            name: np.array([names.index(line["baselines"][name]) for line in written])
            for name in (written[0].get("baselines", {}) if written else {})
        },
    )


def _leaked(run: Run, written: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    """Return which rows leaked: as they were marked, or as the check of leakage lists them.

    A run of an earlier version, which did not mark them, has their number in `leaked_score`. Its
    check lists the first thousand of them by row number; where the ids are not row numbers, or there are
    more, they cannot be found, and no row counts as leaked.
    """
    marked = np.array([bool(line.get("leaked")) for line in written], dtype=np.bool_)
    counted = run.checks.leaked_score
    if counted is None or marked.any():
        return marked
    listed = {
        str(row)
        for result in run.checks.results
        if result.code == "leakage"
        for row in result.rows.get(counted.split, ())
    }
    found = np.array([line["id"] in listed for line in written], dtype=np.bool_)
    return found if int(found.sum()) == counted.leaked else marked


def _without_answers(
    lines: Sequence[Mapping[str, Any]],
    written: Sequence[Mapping[str, Any]],
    leaked: NDArray[np.bool_],
) -> ScoredRows:
    none = np.zeros(0, dtype=np.int64)
    return ScoredRows(
        [_typed(line, "id", str) for line in lines],
        [_typed(line, "text", str) for line in written],
        (),
        none,
        none,
        np.zeros((0, 0), dtype=np.float64),
        leaked,
    )


def _documents(run: Run) -> dict[str, DocumentScores]:
    lines = read_lines(run.folder / DOCUMENTS)
    if other := {line["probe"] for line in lines} - {probe.name for probe in run.forgetting}:
        message = f"{DOCUMENTS} speaks of '{other.pop()}', which is not a probe of the run"
        raise ValueError(message)
    found = {}
    for probe in run.forgetting:
        mine = [line for line in lines if line["probe"] == probe.name]
        if probe.n_documents and not mine:
            message = f"{DOCUMENTS} has no line of probe '{probe.name}'"
            raise ValueError(message)
        sums = {
            key: np.array([_finite(line, key) for line in mine], dtype=np.float64)
            for key in ("before", "after", "weight")
        }
        excerpts = [_typed(line, "excerpt", str) for line in mine]
        found[probe.name] = DocumentScores(
            **sums, excerpts=excerpts, higher_is_better=probe.higher_is_better
        )
    return found


def task_record(
    learning: Learning,
    *,
    data: str,
    columns: Mapping[str, Any] | None = None,
    trained_on: Mapping[str, Any] | None = None,
    leaked: int = 0,
) -> dict[str, Any]:
    """Return the record of a score in an artifact's manifest.

    Args:
        learning: the score, with the majority class among its baselines.
        data: name of the data.
        columns: of which columns of it texts and labels are made.
        trained_on: rows, fingerprint and hub id of what was learned from, where it is known.
        leaked: rows that were read in training and that the score leaves out.
    """
    return {
        "data": data,
        "split": learning.split,
        "n": learning.n,
        "accuracy": learning.accuracy,
        "macro_f1": learning.macro_f1,
        "loss": learning.loss,
        "ci95": {key: list(value) if value else None for key, value in learning.ci95.items()},
        "metrics": dict(learning.metrics),
        "learned": learned_something(learning),
        "majority_accuracy": learning.baselines.get("majority", {}).get("accuracy"),
        "columns": dict(columns or {}),
        "trained_on": None if trained_on is None else dict(trained_on),
        **({"leaked_rows_left_out": leaked} if leaked else {}),
    }


def probe_records(forgetting: Forgetting) -> list[dict[str, Any]]:
    """Return the results of probes as JSON values."""
    records: list[dict[str, Any]] = json.loads(
        json.dumps([dataclasses.asdict(probe) for probe in forgetting])
    )
    return records
