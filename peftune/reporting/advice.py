"""What the findings say, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftune.diagnosis import Finding, unstable_across_seeds
from peftune.reporting.contents import Block, Paragraph, Section, Tone
from peftune.reporting.subject import Subject, listed
from peftune.runs.report import Run

_ORDER: Sequence[Tone] = ("error", "warning", "note")
_FIRST = "nothing-learned"
"""The warning without which every other number misleads."""


def findings_section(subject: Subject) -> Section:
    """Build a paragraph for each kind of finding, the gravest first, with the runs that show it."""
    shown: dict[tuple[int, str, str], dict[str, list[Run]]] = {}
    for finding, runs in _found(subject):
        kind = (_ORDER.index(finding.severity), finding.code, finding.advice)
        shown.setdefault(kind, {}).setdefault(finding.message, []).extend(runs)
    blocks: list[Block] = [
        Paragraph(
            advice,
            f"{_ORDER[rank].capitalize()}: {code}.",
            _ORDER[rank],
            [
                f"{_named(runs)}: {message}" if runs else message
                for message, runs in messages.items()
            ],
        )
        for (rank, code, advice), messages in sorted(shown.items(), key=lambda item: item[0])
    ]
    if subject.runs and not blocks:
        blocks.append(Paragraph("None of the pitfalls that are looked for was seen."))
    return Section("findings", "Findings", blocks)


def alerts_of(subject: Subject) -> list[Paragraph]:
    """Say what has to be known before any number is read: what makes the numbers say nothing."""
    alerts: list[Paragraph] = []
    if subject.failures:
        failed = listed([f"{one.strategy}, seed {one.seed}" for one in subject.failures])
        text = f"{failed} did not finish; what is said below is said of the others."
        alerts.append(Paragraph(text, "Failed", "error"))
    shown: dict[tuple[str, str, Tone], list[tuple[Finding, Sequence[Run]]]] = {}
    for finding, runs in _found(subject):
        if finding.severity == "error" or finding.code == _FIRST:
            kind = (finding.code, finding.advice, finding.severity)
            shown.setdefault(kind, []).append((finding, runs))
    for (code, advice, tone), found in shown.items():
        lead = code.replace("-", " ").capitalize()
        alerts.append(Paragraph(f"{_seen(subject, found)} {advice}", lead, tone))
    return sorted(alerts, key=lambda alert: _ORDER.index(alert.tone))


def _seen(subject: Subject, found: Sequence[tuple[Finding, Sequence[Run]]]) -> str:
    """Say what was seen where one run shows it, and otherwise which runs do."""
    runs = [run for _, shown in found for run in shown]
    alone = len(subject.runs) == 1 or len(runs) < len(found)
    if alone or len(runs) == 1:
        where = "" if alone else f"{_named(runs)}: "
        return where + " ".join(dict.fromkeys(finding.message for finding, _ in found))
    every = "every run" if len(runs) == len(subject.runs) else _named(runs)
    return f"Seen in {every}."


def _found(subject: Subject) -> Iterator[tuple[Finding, Sequence[Run]]]:
    """Give what the comparison shows, what runs show, and what the seeds of a strategy show."""
    for finding in subject.findings:
        yield finding, []
    for run in subject.runs:
        for finding in run.findings:
            yield finding, [run]
    for items in subject.by_strategy.values():
        runs = [item.run for item in items]
        accuracies = [run.learning.accuracy for run in runs if run.learning.accuracy is not None]
        unstable = unstable_across_seeds(accuracies, runs[0].learning.n)
        if unstable is not None:
            yield unstable, runs


def _named(runs: Sequence[Run]) -> str:
    """Name runs by strategy: `lora, seeds 0 and 1; full, seed 2`."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(run.run.strategy, []).append(str(run.run.seed))
    return "; ".join(
        f"{strategy}, seed{'s' if len(found) > 1 else ''} {listed(found)}"
        for strategy, found in seeds.items()
    )
