"""The report: one page that answers, the same as Markdown, and a line a run for programs."""

from peftune.reporting.report_writer import Report, write_missing_reports, write_reports

__all__ = ["Report", "write_missing_reports", "write_reports"]
