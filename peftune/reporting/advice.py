"""What the findings say, with what to do."""

from __future__ import annotations

from peftune.reporting.contents import Block, Paragraph, Section
from peftune.reporting.subject import Subject, listed
from peftune.runs.report import Finding

_ORDER = ("error", "warning", "note")


def findings_section(subject: Subject) -> Section:
    """Build a paragraph for each finding, the gravest first, with the runs that show it."""
    shown: dict[Finding, list[tuple[str, int]]] = {}
    for run in subject.runs:
        for finding in run.findings:
            shown.setdefault(finding, []).append((run.run.strategy, run.run.seed))
    order = sorted(shown, key=lambda one: (_ORDER.index(one.severity), one.code))
    blocks: list[Block] = [
        Paragraph(
            f"{finding.message} {finding.advice} ({_runs(shown[finding])})",
            f"{finding.severity}: {finding.code}.",
            finding.severity,
        )
        for finding in order
    ]
    if subject.runs and not blocks:
        blocks.append(Paragraph("None of the pitfalls that are looked for was seen."))
    return Section("findings", "Findings", blocks)


def _runs(runs: list[tuple[str, int]]) -> str:
    """Name runs by strategy: `lora, seeds 0 and 1; full, seed 2`."""
    seeds: dict[str, list[str]] = {}
    for strategy, seed in runs:
        seeds.setdefault(strategy, []).append(str(seed))
    return "; ".join(
        f"{strategy}, seed{'s' if len(found) > 1 else ''} {listed(found)}"
        for strategy, found in seeds.items()
    )
