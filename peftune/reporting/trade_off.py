"""Sections on accuracy against forgetting, and on curves over training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from peftune.experiments.compare.summary import Summary
from peftune.experiments.report import Run
from peftune.forgetting.callback import KEY
from peftune.reporting.contents import (
    Block,
    Cell,
    Figure,
    Figures,
    Paragraph,
    Section,
    Subject,
    Table,
    title_of,
)
from peftune.reporting.plots import Line, Mark, Onset, curves, trade_off
from peftune.stats.formats import between, listed, plain, share, signed

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
    """Return the legend of the plots."""
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
    caption = "; ".join(
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
        f"{caption}.{ends}",
        _numbers_of_marks(subject, probe, marks),
        wide=True,
    )


def _marks(subject: Subject, probe: str) -> Iterator[Mark]:
    """Yield the strategies of a comparison, or the runs where there is none."""
    key, summary = f"forgetting.{probe}", subject.summary
    fronts = {} if summary is None else {front.key: front.strategies for front in summary.fronts}
    for name, series, figures in subject.figures:
        accuracy, forgetting = figures.get("accuracy"), figures.get(key)
        if accuracy and forgetting and accuracy.mean is not None and forgetting.mean is not None:
            yield Mark(
                name,
                series,
                accuracy.mean,
                forgetting.mean,
                accuracy.ci95,
                forgetting.ci95,
                on_front=key not in fronts or name in fronts[key],
            )


def _paths(subject: Subject, probe: str) -> Iterator[Line]:
    """Yield each run's path over strengths, and over checkpoints."""
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


def _numbers_of_marks(subject: Subject, probe: str, marks: Sequence[Mark]) -> Table:
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


Form: TypeAlias = Callable[[float | None], str]

_TRAINING, _VALIDATION = "train_sample_loss", "validation_loss"
_ACCURACY = "validation_accuracy"
_MARGIN = 0.05


def curves_section(subject: Subject) -> Section:
    """Build a panel of losses for each strategy, and the other curves for all of them."""
    figures = [*_losses(subject)]
    if lines := _lines(subject, _ACCURACY):
        figures.append(_accuracy(lines))
    figures += _forgetting(subject)
    if not figures:
        return Section("curves", "Curves", [])
    why = "One line a seed. Training rows (a sample of them) and validation rows are scored alike: at the same steps, without dropout. Where the loss of training rows falls and that of validation rows rises, the strategy overfits; where both stay high, it underfits."
    blocks: list[Block] = [Paragraph(why), Figures(figures)]
    return Section("curves", "Learning and forgetting curves", blocks)


def _losses(subject: Subject) -> Iterator[Figure]:
    """Give a panel for each strategy; all have the same scale."""
    panels = {
        strategy: [
            line
            for item in items
            for key, label, dash in (
                (_TRAINING, "training rows", 1),
                (_VALIDATION, "validation rows", 0),
            )
            for line in _line(item.run, key, label, subject.series(strategy), dash=dash)
        ]
        for strategy, items in subject.by_strategy.items()
    }
    values = [y for lines in panels.values() for line in lines for y in line.ys]
    unit = "" if any(run.learning.task_type.numeric for run in subject.runs) else "nats"
    if not values:
        return
    margin = _MARGIN * (max(values) - min(values)) or 1.0
    limits = (min(values) - margin, max(values) + margin)
    for strategy, lines in panels.items():
        if not lines:
            continue
        series = subject.series(strategy)
        yield Figure(
            curves(
                lines,
                name=f"loss-{series}",
                x_label="step",
                y_label=f"loss{unit and f' ({unit})'}",
                limits=limits,
                onsets=_onsets(subject, strategy),
            ),
            f"Loss of {strategy}",
            f"Loss of {strategy} on training and validation rows by training step. {_ends(lines, plain)}{_marked(subject, strategy)}",
            _numbers_of_lines(f"Loss of {strategy}{unit and f', {unit}'}", lines, plain),
        )


def _onsets(subject: Subject, strategy: str) -> list[Onset]:
    """Return the steps at which runs began to overfit or underfit, each once."""
    steps = dict.fromkeys(
        (finding.step, finding.code)
        for item in subject.by_strategy[strategy]
        for finding in item.run.findings
        if finding.step is not None
    )
    return [
        Onset(code, float(step), subject.series(strategy))
        for step, code in sorted(steps)
        if step is not None
    ]


def _marked(subject: Subject, strategy: str) -> str:
    marked = (f"{one.label} from step {one.x:g}" for one in _onsets(subject, strategy))
    words = "; ".join(marked)
    return f" Marked: {words}." if words else ""


def _accuracy(lines: Sequence[Line]) -> Figure:
    title = "Accuracy on validation rows"
    svg = curves(lines, name="validation-accuracy", x_label="step", y_label="accuracy")
    return Figure(
        svg,
        title,
        f"{title} by step. {_ends(lines, share)}",
        _numbers_of_lines(title, lines, share),
    )


def _forgetting(subject: Subject) -> Iterator[Figure]:
    """Give a plot for each text measured during training, and for each probe at checkpoints."""
    watched = dict.fromkeys(
        key
        for run in subject.runs
        for point in run.learning.curve
        for key in point
        if key.startswith(KEY)
    )
    found = [
        (f"Forgetting during training, {key.removeprefix(KEY)}", _lines(subject, key))
        for key in watched
    ]
    found += [
        (f"Forgetting at checkpoints, {probe}", _checkpoints(subject, probe))
        for probe in subject.probes
    ]
    for index, (title, lines) in enumerate(found):
        if lines:
            yield Figure(
                curves(
                    lines,
                    name=f"forgetting-{index}",
                    x_label="step",
                    y_label="forgetting",
                    zero=True,
                ),
                title,
                f"{title}, by step; positive is worse. {_ends(lines, signed)}",
                _numbers_of_lines(title, lines, signed),
            )


def _checkpoints(subject: Subject, probe: str) -> list[Line]:
    lines = []
    for run in subject.runs:
        points = [p for p in run.forgetting.path if p.step is not None and probe in p.forgetting]
        if points:
            points.sort(key=lambda point: point.step or 0)
            lines.append(
                _strategy_line(
                    subject,
                    run,
                    [float(point.step or 0) for point in points],
                    [point.forgetting[probe] for point in points],
                )
            )
    return lines


def _lines(subject: Subject, key: str) -> list[Line]:
    return [
        _strategy_line(subject, run, line.xs, line.ys)
        for run in subject.runs
        for line in _line(run, key, "", 0)
    ]


def _strategy_line(subject: Subject, run: Run, xs: Sequence[float], ys: Sequence[float]) -> Line:
    strategy = run.run.strategy
    series = subject.series(strategy)
    return Line(strategy, series, xs, ys, dash=series, dotted=True)


def _line(run: Run, key: str, label: str, series: int, *, dash: int = 0) -> list[Line]:
    """Read one curve of a run; none where it was not measured."""
    points = [point for point in run.learning.curve if point.get(key) is not None]
    if not points:
        return []
    xs = [float(point["step"]) for point in points]
    ys = [float(point[key]) for point in points]
    return [Line(label, series, xs, ys, dash=dash, dotted=True)]


def _ends(lines: Sequence[Line], form: Form) -> str:
    words = [f"{line.label} from {form(line.ys[0])} to {form(line.ys[-1])}" for line in lines]
    return f"{'; '.join(words)}." if words else ""


def _numbers_of_lines(caption: str, lines: Sequence[Line], form: Form) -> Table:
    steps = sorted({x for line in lines for x in line.xs})
    known = [dict(zip(line.xs, line.ys, strict=True)) for line in lines]
    rows = [
        [Cell(f"{step:g}"), *(Cell(form(values.get(step))) for values in known)] for step in steps
    ]
    headings = ["Step", *(f"{line.label}, run {i}" for i, line in enumerate(lines, start=1))]
    return Table(caption, headings, rows, "r" * len(headings))
