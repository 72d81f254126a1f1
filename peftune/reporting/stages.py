"""Which stage cost what: the forgetting of a run, shared out over what it learned in order."""

from __future__ import annotations

from peftune.reporting.contents import Cell, Section, Table
from peftune.reporting.numbers import between, signed
from peftune.reporting.subject import Subject, title_of
from peftune.runs.report import Run


def stages_section(subject: Subject) -> Section:
    """Build a table for each run that did not begin as its base."""
    tables = [_table(run) for run in subject.runs if run.forgetting.stages]
    return Section("stages", "Forgetting by stage", tables)


def _table(run: Run) -> Table:
    probes = [probe.name for probe in run.forgetting]
    rows = [
        [
            Cell(stage.name, stage.task),
            *(
                Cell(signed(stage.forgetting[name]), between(stage.ci95[name], signed))
                for name in probes
            ),
        ]
        for stage in run.forgetting.stages
    ]
    total = [Cell("all together"), *(Cell(signed(p.forgetting)) for p in run.forgetting)]
    return Table(
        title_of(run),
        ["Stage", *(f"{probe.name}, {probe.unit}" for probe in run.forgetting)],
        [*rows, total],
        "l" + "r" * len(probes),
        "After each stage, minus after the one before; positive is worse. Below a number: its 95% paired bootstrap interval over documents.",
    )
