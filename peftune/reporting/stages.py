"""The parts of a run: which stage cost what, and what each fold of a cross-validation scored."""

from __future__ import annotations

from peftune.reporting.contents import Cell, Section, Table
from peftune.reporting.numbers import NOT_MEASURED, between, share, signed
from peftune.reporting.subject import Subject, title_of
from peftune.runs.report import Run
from peftune.tasks.learning import Learning


def stages_section(subject: Subject) -> Section:
    """Build a table for each run that did not begin as its base."""
    tables = [_table(run) for run in subject.runs if run.forgetting.stages]
    return Section("stages", "Forgetting by stage", tables)


def folds_section(subject: Subject) -> Section:
    """Build a table for each cross-validation: its folds, all rows, and the test."""
    tables = [_folds(run) for run in subject.runs if run.folds]
    return Section("folds", "Folds", tables)


def _folds(run: Run) -> Table:
    probes = [probe.name for probe in run.forgetting]
    rows = [
        [
            Cell(fold.folder, f"{fold.n:,} rows"),
            Cell(share(fold.accuracy)),
            Cell(share(fold.macro_f1)),
            *(Cell(signed(fold.forgetting[name])) for name in probes),
        ]
        for fold in run.folds
    ]
    learned = run.learning
    rows.append(
        [
            Cell("all rows", f"{learned.n:,} rows"),
            *_scores(learned),
            *(Cell(signed(p.forgetting), between(p.ci95, signed)) for p in run.forgetting),
        ]
    )
    if run.test is not None:
        title = Cell("test", f"{run.test.n:,} rows, logits of the folds averaged")
        rows.append([title, *_scores(run.test), *(Cell(NOT_MEASURED) for _ in probes)])
    return Table(
        title_of(run),
        ["Fold", "Accuracy", "Macro F1", *(f"{p.name}, {p.unit}" for p in run.forgetting)],
        rows,
        "lrr" + "r" * len(probes),
        "Each fold is scored by the run that did not see it. Below a number: its 95% interval over rows or documents, of that one model.",
    )


def _scores(learning: Learning) -> list[Cell]:
    return [
        Cell(share(learning.accuracy), between(learning.ci95["accuracy"], share)),
        Cell(share(learning.macro_f1), between(learning.ci95["macro_f1"], share)),
    ]


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
        "After each stage, minus after the one before; positive is worse. Below a number: its 95% interval over documents, of this one model.",
    )
