"""Write the report: a page for people, Markdown for pull requests, a table for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftune.compare.clean_rows import clean_rows
from peftune.compare.jobs import Failure
from peftune.compare.summary import Summary
from peftune.diagnosis import Finding
from peftune.errors import OutputFolderError
from peftune.files.publish import replace_file
from peftune.reporting.advice import alerts_of, findings_section
from peftune.reporting.answers import calibration_section, confusion_section
from peftune.reporting.contents import Contents
from peftune.reporting.curves import curves_section
from peftune.reporting.data_checks import data_section
from peftune.reporting.heading import answer_of, facts_of, run_section, title_of_report
from peftune.reporting.labels import labels_section
from peftune.reporting.ladder import ladder_section
from peftune.reporting.markdown import markdown
from peftune.reporting.mistakes import mistakes_section
from peftune.reporting.origin import origin_section, repeat_section
from peftune.reporting.page import page
from peftune.reporting.paid import paid_section
from peftune.reporting.spreadsheet import spreadsheet
from peftune.reporting.stages import folds_section, stages_section
from peftune.reporting.standings import matched_section, strategies_section
from peftune.reporting.subject import Subject
from peftune.reporting.trade_off import trade_off_section
from peftune.runs.evidence import Evidence

PAGE, MARKDOWN, SPREADSHEET = "report.html", "report.md", "report.csv"

_SECTIONS = (
    run_section,
    folds_section,
    stages_section,
    strategies_section,
    ladder_section,
    trade_off_section,
    matched_section,
    curves_section,
    confusion_section,
    calibration_section,
    mistakes_section,
    paid_section,
    findings_section,
    data_section,
    origin_section,
    repeat_section,
)

_OF_ANY_TASK = (
    run_section,
    labels_section,
    curves_section,
    paid_section,
    findings_section,
    data_section,
    origin_section,
    repeat_section,
)
"""What is said of tasks in which a row has not just one label."""


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


def contents_of(subject: Subject) -> Contents:
    """Build everything that a report says, in the order of its sections."""
    single = all(run.learning.task == "single-label" for run in subject.runs)
    sections = [build(subject) for build in (_SECTIONS if single else _OF_ANY_TASK)]
    return Contents(
        title=title_of_report(subject),
        facts=facts_of(subject),
        answer=answer_of(subject),
        sections=[section for section in sections if section.blocks],
        alerts=alerts_of(subject),
    )
