"""Write the report: a page for people, Markdown for pull requests, a table for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from peftune.baselines.baseline import Baseline
from peftune.baselines.measure import read_baselines
from peftune.errors import OutputFolderError, UsageError
from peftune.experiments.compare.clean_rows import CleanRows, baselines_of, clean_rows
from peftune.experiments.compare.comparison import BASELINES, COMPARISON
from peftune.experiments.compare.executors import Failure
from peftune.experiments.compare.figures import pitfalls_found, pitfalls_of_runs
from peftune.experiments.compare.summarize import summarize_clean
from peftune.experiments.compare.summary import HeldEqual, Summary
from peftune.experiments.report import PAGE
from peftune.experiments.run_evidence import Evidence, read_evidence, refuse_mixed_runs
from peftune.experiments.run_folder import REPORT, read_own_text
from peftune.files.publishing import replace_file
from peftune.files.reading import given_path
from peftune.findings.finding import Finding
from peftune.findings.learning import BELOW_LINEAR_PROBE
from peftune.progress import working
from peftune.reporting.answers import (
    calibration_section,
    confusion_section,
    labels_section,
    mistakes_section,
)
from peftune.reporting.contents import Contents, Subject
from peftune.reporting.data_section import (
    data_section,
    folds_section,
    largest_losses_section,
    stages_section,
)
from peftune.reporting.overview import (
    alerts_of,
    answer_of,
    facts_of,
    findings_section,
    origin_section,
    repeat_section,
    run_section,
    title_of_report,
)
from peftune.reporting.page import markdown, page, spreadsheet
from peftune.reporting.standings import baselines_section, matched_section, strategies_section
from peftune.reporting.trade_off import curves_section, trade_off_section

MARKDOWN, SPREADSHEET = "report.md", "report.csv"

_SECTIONS = (
    run_section,
    folds_section,
    stages_section,
    strategies_section,
    baselines_section,
    trade_off_section,
    matched_section,
    curves_section,
    confusion_section,
    calibration_section,
    mistakes_section,
    largest_losses_section,
    findings_section,
    data_section,
    origin_section,
    repeat_section,
)

_OF_ANY_TASK = (
    run_section,
    labels_section,
    curves_section,
    largest_losses_section,
    findings_section,
    data_section,
    origin_section,
    repeat_section,
)
"""Sections of tasks other than single-label."""


@dataclass(frozen=True, slots=True)
class Report:
    """The files of a report.

    Args:
        page: `report.html`, which needs nothing beside itself.
        markdown: `report.md`, the same tables.
        spreadsheet: `report.csv`, one line a run.
        answer: the verdict in one sentence.
    """

    page: Path
    markdown: Path
    spreadsheet: Path
    answer: str

    def as_json(self) -> dict[str, str]:
        """Return the paths and the answer as JSON holds them."""
        return {name: str(value) for name, value in dataclasses.asdict(self).items()}


def write_reports(
    summary: Summary | None,
    evidence: Sequence[Evidence],
    failures: Sequence[Failure],
    folder: str | Path,
    *,
    findings: Sequence[Finding] = (),
) -> Report:
    """Write `report.html`, `report.md` and `report.csv`; the same content gives the same bytes.

    Args:
        summary: what the comparison says; None for a run on its own.
        evidence: the finished runs, all of the same rows; of a comparison those that were read in
            training are left out.
        failures: the runs that did not finish.
        folder: where to; made where it is missing.
        findings: what was found in the comparison as a whole.

    Raises:
        OutputFolderError: the folder cannot be made.
        StorageError: a file could not be written.
    """
    if summary is not None and summary.leaked is not None:
        evidence = clean_rows(evidence).evidence
    contents = contents_of(Subject(summary, evidence, failures, findings))
    folder = Path(folder)
    report = Report(folder / PAGE, folder / MARKDOWN, folder / SPREADSHEET, contents.answer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = (
            f"'{folder}' cannot be written: {error.strerror}. Choose another folder with --output."
        )
        raise OutputFolderError(message) from error
    replace_file(report.page, page(contents))
    replace_file(report.markdown, markdown(contents))
    replace_file(report.spreadsheet, spreadsheet(evidence, failures))
    return report


def write_missing_reports(evidence: Sequence[Evidence]) -> None:
    """Write the report of each run that lacks one, as a run that was stopped after its last number.

    Raises:
        StorageError: a file could not be written.
    """
    for one in evidence:
        folder = one.run.folder
        if not all((folder / name).exists() for name in (PAGE, MARKDOWN, SPREADSHEET)):
            write_reports(None, [one], (), folder)


def contents_of(subject: Subject) -> Contents:
    """Build the contents of a report, in the order of its sections."""
    single = all(run.learning.task_type.one_label for run in subject.runs)
    sections = [build(subject) for build in (_SECTIONS if single else _OF_ANY_TASK)]
    return Contents(
        title=title_of_report(subject),
        facts=facts_of(subject),
        answer=answer_of(subject),
        sections=[section for section in sections if section.blocks],
        alerts=alerts_of(subject),
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """Settings of a comparison in `comparison.json`; defaults for runs that are named one by one.

    Args:
        held_equal: what the strategies share besides rows and seeds.
        budgets: trials of each strategy's tuning.
        baselines: the baselines, with what each says of every row where `baselines.json` lies there.
        findings: what was found in the comparison; None where nothing says what was looked for.
    """

    held_equal: HeldEqual = "examples_seen"
    budgets: Mapping[str, int] = field(default_factory=dict)
    baselines: Sequence[Baseline] = ()
    findings: Sequence[Finding] | None = None


class _RunIn(BaseModel):
    """Which folder of a comparison holds a run; the rest of the entry is the run's own report."""

    folder: str

    @field_validator("folder")
    @classmethod
    def _lies_there(cls, folder: str) -> str:
        if folder in {"", ".", ".."} or Path(folder).name != folder:
            message = "a run lies in a folder of the comparison's own"
            raise ValueError(message)
        return folder


class _Written(BaseModel):
    """The fields of a `comparison.json` that are read."""

    runs: list[_RunIn]
    failures: list[Failure]
    held_equal: HeldEqual = "examples_seen"
    budgets: dict[str, int] | None = None
    ladder: list[dict[str, Any]] | None = None
    findings: list[Finding] | None = None


@working("writing the report")
def report(
    *folders: str | Path, output: str | Path | None = None, row_texts: bool = True
) -> Report:
    """Write the report of run folders, or of the folder of a comparison; nothing is trained.

    Args:
        folders: run folders, or folders that hold a `comparison.json`.
        output: where to; otherwise into the folder, if it is one.
        row_texts: show the texts of rows; False for a page that people will read who may not read
            the rows.

    Returns:
        Where `report.html`, `report.md` and `report.csv` lie.

    Raises:
        UsageError: a folder holds neither a run nor a comparison, or the runs do not fit together.
    """
    if not folders:
        message = "There is nothing to report on. Name run folders, or the folder of a comparison."
        raise UsageError(message)
    if output is None and len(folders) > 1:
        message = "The report of several folders needs a place of its own: output=… in Python, --output on the command line."
        raise UsageError(message)
    runs: list[Path] = []
    failures: list[Failure] = []
    terms = Terms()
    for folder in (given_path(folder, "folder") for folder in folders):
        if (folder / COMPARISON).is_file():
            found, failed, terms = _read_comparison(folder)
            runs += found
            failures += failed
        else:
            runs.append(_run_folder(folder))
    evidence: Sequence[Evidence] = [read_evidence(folder) for folder in dict.fromkeys(runs)]
    if not row_texts:
        evidence = [_without_texts(item) for item in evidence]
    refuse_mixed_runs(evidence, advice="Report on each by itself.")
    place = Path(folders[0]) if output is None else given_path(output, "output")
    clean = clean_rows(
        evidence, terms.baselines or [one for run in evidence[:1] for one in baselines_of(run)]
    )
    # Strategies are compared on the rows that none had read; runs alone are shown as they are.
    several = len({item.run.run.strategy for item in evidence}) > 1
    return write_reports(
        summarize_clean(clean, held_equal=terms.held_equal, budgets=terms.budgets or None)
        if several
        else None,
        clean.evidence if several else evidence,
        failures,
        place,
        findings=_findings(clean, terms),
    )


def _findings(clean: CleanRows, terms: Terms) -> Sequence[Finding]:
    """Return the comparison's findings, or look for them in runs that were named one by one."""
    if terms.findings is None:
        return pitfalls_of_runs(clean.evidence, clean.baselines)
    if clean.leaked is None:
        return terms.findings
    # What an earlier version found in rows that had been read in training is looked at again.
    kept = [finding for finding in terms.findings if finding.code != BELOW_LINEAR_PROBE.code]
    return [*kept, *pitfalls_found(clean.evidence, clean.baselines)]


def _run_folder(folder: Path) -> Path:
    if not (folder / REPORT).is_file():
        message = f"'{folder}' holds neither a run ({REPORT}) nor a comparison ({COMPARISON}). Name the output folder of 'peftune run' or 'peftune compare'."
        raise UsageError(message)
    return folder


def _read_comparison(folder: Path) -> tuple[list[Path], list[Failure], Terms]:
    """Read the runs of a comparison, the failures, and its settings."""
    try:
        values = _Written.model_validate_json(read_own_text(folder / COMPARISON), strict=True)
        terms = Terms(
            held_equal=values.held_equal,
            budgets=values.budgets or {},
            baselines=read_baselines(folder / BASELINES)
            or [Baseline.from_entry(one) for one in values.ladder or ()],
            findings=values.findings,
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        message = f"'{folder / COMPARISON}' is damaged ({_reason(error)}). Run 'peftune compare' again; finished runs are kept."
        raise UsageError(message) from error
    runs = [folder / run.folder for run in values.runs]
    failures = values.failures
    return runs, failures, terms


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def _without_texts(evidence: Evidence) -> Evidence:
    rows = dataclasses.replace(evidence.rows, texts=["(left out)"] * len(evidence.rows.ids))
    return dataclasses.replace(evidence, rows=rows)
