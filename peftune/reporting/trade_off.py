"""Accuracy against forgetting: what is not beaten in both, and the paths that lead there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftune.compare.summary import Summary
from peftune.reporting.contents import Block, Cell, Figure, Figures, Paragraph, Section, Table
from peftune.reporting.numbers import between, share, signed
from peftune.reporting.plots import trade_off
from peftune.reporting.plotted import Line, Mark
from peftune.reporting.subject import Subject, listed, title_of

_KEYS = {
    "train_seconds": "training time",
    "peak_memory_bytes": "peak memory",
    "artifact_bytes": "file size",
    "trainable_parameters": "trainable parameters",
}


def trade_off_section(subject: Subject) -> Section:
    """Build a plot for each probe, and the table of Pareto fronts."""
    plots = [
        _figure(subject, probe, marks, f"trade-off-{index}")
        for index, probe in enumerate(subject.probes)
        if (marks := list(_marks(subject, probe)))
    ]
    blocks: list[Block] = []
    if plots:
        blocks += [
            Paragraph(_reading(subject)),
            Figures(plots),
        ]
    if subject.summary is not None and subject.summary.fronts:
        blocks.append(_fronts(subject.summary))
    return Section("trade-off", "Accuracy against forgetting", blocks)


def _reading(subject: Subject) -> str:
    """Say how to read the plots that there are."""
    parts = ["Down and to the right is better."]
    marks = [mark for probe in subject.probes for mark in _marks(subject, probe)]
    if any(mark.x_interval or mark.y_interval for mark in marks):
        alone = " over rows and documents, of each model alone" if subject.summary is None else ""
        parts.append(f"Crosses are 95% intervals{alone}.")
    if subject.summary is not None:
        parts.append("A hollow marker is a strategy that another beats in both.")
    if any(list(_paths(subject, probe)) for probe in subject.probes):
        parts.append(
            "Thin lines lead to each run: full ones through its weights at a part of their strength, broken ones through its checkpoints."
        )
    return " ".join(parts)


def _figure(subject: Subject, probe: str, marks: Sequence[Mark], name: str) -> Figure:
    paths = list(_paths(subject, probe))
    front = [mark.label for mark in marks if mark.on_front]
    told = "; ".join(
        f"{mark.label}: accuracy {share(mark.x)}, forgetting {signed(mark.y)}" for mark in marks
    )
    ends = (
        f" Not beaten in both at once: {listed(front)}; hollow markers are beaten."
        if subject.summary is not None and front
        else ""
    )
    return Figure(
        trade_off(
            marks,
            paths,
            name=name,
            x_label="accuracy",
            y_label=f"forgetting on {probe} ({subject.unit(probe)})",
        ),
        f"Accuracy against forgetting on {probe}",
        f"{told}.{ends}",
        _numbers(subject, probe, marks),
        wide=True,
    )


def _marks(subject: Subject, probe: str) -> Iterator[Mark]:
    """Give the strategies of a comparison, or the runs where there is none."""
    key = f"forgetting.{probe}"
    if subject.summary is None:
        for run in subject.runs:
            result, learning = run.forgetting[probe], run.learning
            if learning.accuracy is None:
                continue
            yield Mark(
                title_of(run),
                subject.series(run.run.strategy),
                learning.accuracy,
                result.forgetting,
                learning.ci95["accuracy"],
                result.ci95,
            )
        return
    fronts = {front.key: front.strategies for front in subject.summary.fronts}
    for standing in subject.summary.standings:
        accuracy, forgetting = standing.figures.get("accuracy"), standing.figures.get(key)
        if accuracy and forgetting and accuracy.mean is not None and forgetting.mean is not None:
            yield Mark(
                standing.strategy,
                subject.series(standing.strategy),
                accuracy.mean,
                forgetting.mean,
                accuracy.ci95,
                forgetting.ci95,
                on_front=key not in fronts or standing.strategy in fronts[key],
            )


def _paths(subject: Subject, probe: str) -> Iterator[Line]:
    """Give each run's way over strengths, and over checkpoints."""
    for run in subject.runs:
        points = run.forgetting.path
        kept = sorted((p for p in points if p.step is None), key=lambda p: p.strength)
        earlier = sorted((p for p in points if p.step is not None), key=lambda p: p.step or 0)
        for dash, way in enumerate((kept, earlier)):
            known = [
                point for point in way if probe in point.forgetting and point.accuracy is not None
            ]
            if len(known) > 1:
                yield Line(
                    title_of(run),
                    subject.series(run.run.strategy),
                    [point.accuracy for point in known if point.accuracy is not None],
                    [point.forgetting[probe] for point in known],
                    dash,
                )


def _numbers(subject: Subject, probe: str, marks: Sequence[Mark]) -> Table:
    rows = [
        [
            Cell(mark.label, series=mark.series),
            Cell(share(mark.x), between(mark.x_interval, share)),
            Cell(signed(mark.y), between(mark.y_interval, signed)),
        ]
        for mark in marks
    ]
    for run in subject.runs:
        rows += [
            [
                Cell(
                    f"{title_of(run)}, strength {point.strength:g}"
                    + ("" if point.step is None else f", step {point.step}")
                ),
                Cell(share(point.accuracy)),
                Cell(signed(point.forgetting.get(probe))),
            ]
            for point in run.forgetting.path
        ]
    unit = subject.unit(probe)
    columns = ["", "Accuracy", f"Forgetting, {unit}"]
    return Table(f"Accuracy and forgetting on {probe}", columns, rows, "lrr")


def _fronts(summary: Summary) -> Table:
    marks = {True: "not beaten", False: "beaten"}
    columns = ["Accuracy and …"] + [standing.strategy for standing in summary.standings]
    return Table(
        caption="Which strategies no other beats in accuracy and in one more figure at once",
        columns=columns,
        rows=[
            [
                Cell(_named(front.key)),
                *(
                    Cell(marks[standing.strategy in front.strategies])
                    for standing in summary.standings
                ),
            ]
            for front in summary.fronts
        ],
        align="l" * len(columns),
        note="The Pareto front of each pair of figures, by means over seeds.",
    )


def _named(key: str) -> str:
    return _KEYS.get(key) or key.replace("forgetting.", "forgetting on ").replace("_", " ")
