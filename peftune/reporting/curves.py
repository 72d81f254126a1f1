"""How the runs got there: loss, score and forgetting while training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from peftune.reporting.contents import Block, Cell, Figure, Figures, Paragraph, Section, Table
from peftune.reporting.numbers import plain, share, signed
from peftune.reporting.plots import curves
from peftune.reporting.plotted import Line, Onset
from peftune.reporting.subject import Subject
from peftune.runs.report import Run
from peftune.training.forgetting_callback import KEY

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
    unit = "" if any(run.learning.task == "regression" for run in subject.runs) else "nats"
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
            _numbers(f"Loss of {strategy}{unit and f', {unit}'}", lines, plain),
        )


def _onsets(subject: Subject, strategy: str) -> list[Onset]:
    """Mark where a run began to overfit or underfit; what runs have in common is marked once."""
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
        svg, title, f"{title} by step. {_ends(lines, share)}", _numbers(title, lines, share)
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
                _numbers(title, lines, signed),
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


def _numbers(caption: str, lines: Sequence[Line], form: Form) -> Table:
    steps = sorted({x for line in lines for x in line.xs})
    known = [dict(zip(line.xs, line.ys, strict=True)) for line in lines]
    rows = [
        [Cell(f"{step:g}"), *(Cell(form(values.get(step))) for values in known)] for step in steps
    ]
    headings = ["Step", *(f"{line.label}, run {i}" for i, line in enumerate(lines, start=1))]
    return Table(caption, headings, rows, "r" * len(headings))
