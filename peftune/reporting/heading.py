"""What stands at the top: what was run, on what, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftune.reporting.contents import Block, Cell, Section, Table
from peftune.reporting.numbers import (
    NOT_MEASURED,
    between,
    count,
    milliseconds,
    plain,
    seconds,
    share,
    signed,
    size,
)
from peftune.reporting.subject import Subject, listed, title_of
from peftune.runs.report import Run
from peftune.tasks.headline import headline_scores
from peftune.tasks.learning import learned_something

_ARTICLES = {"accuracy": "an ", "macro_f1": "a "}


def title_of_report(subject: Subject) -> str:
    """Name the comparison or the run."""
    names = list(dict.fromkeys(run.run.name for run in subject.runs))
    if subject.summary is None and len(subject.runs) == 1:
        return f"{names[0]}: {title_of(subject.runs[0])}"
    if not subject.strategies:
        return "A comparison without a finished run"
    return f"{listed(names)}: {listed(subject.strategies)} compared"


def facts_of(subject: Subject) -> str:
    """Say in a line which base, rows and seeds the numbers rest on."""
    if not subject.runs:
        return ""
    bases = listed(list(dict.fromkeys(run.run.base_model for run in subject.runs)))
    learning = subject.runs[0].learning
    seeds = sorted({run.run.seed for run in subject.runs})
    word = "seed" if len(seeds) == 1 else "seeds"
    return f"Base {bases} · {learning.n:,} {learning.split} rows · {word} {listed(list(map(str, seeds)))}"


def answer_of(subject: Subject) -> str:
    """Give the verdict in one sentence; of a run on its own, what it measured."""
    if subject.summary is not None:
        return subject.summary.answer
    if len(subject.runs) != 1:
        return "No comparison was made."
    run = subject.runs[0]
    score = next(headline_scores(run.learning))
    interval = between(score.interval, share, without="no interval")
    learned = f"{run.run.strategy} reaches {_ARTICLES.get(score.name, '')}{score.title} of {share(score.value)} ({interval}) on {run.learning.n:,} {run.learning.split} rows"
    forgotten = listed(
        [
            f"{signed(probe.forgetting)} {probe.unit} ({between(probe.ci95, signed, without='no interval')}) on {probe.name}"
            for probe in run.forgetting
        ]
    )
    if not learned_something(run.learning):
        says = f"; forgetting {forgotten} says nothing without learning" if forgotten else ""
        return f"Nothing was learned: {learned}{says}."
    if not forgotten:
        return f"{learned}; what it forgot was not measured."
    return f"{learned} and forgets {forgotten}."


def run_section(subject: Subject) -> Section:
    """Build the table of a run that stands on its own."""
    runs = subject.runs if subject.summary is None else ()
    return Section("runs", "The run" if len(runs) == 1 else "The runs", runs_table(runs))


def runs_table(runs: Sequence[Run]) -> list[Block]:
    """Build the table of the numbers of single runs: a column for one, a row each for several."""
    if not runs:
        return []
    facts = [dict(_facts(run)) for run in runs]
    names = list(dict.fromkeys(name for known in facts for name in known))
    note = "Below a number: its 95% interval over rows or documents."
    if len(runs) == 1:
        rows = [[Cell(name), cell] for name, cell in facts[0].items()]
        return [Table(title_of(runs[0]), ["Figure", "Value"], rows, "lr", note)]
    rows = [
        [Cell(title_of(run)), *(known.get(name, Cell(NOT_MEASURED)) for name in names)]
        for run, known in zip(runs, facts, strict=True)
    ]
    align = "l" + "r" * len(names)
    return [Table("Each run by itself", ["Run", *names], rows, align, note, cards=True)]


def _facts(run: Run) -> Iterator[tuple[str, Cell]]:
    learning, cost = run.learning, run.cost
    for score in headline_scores(learning):
        title = score.title[0].upper() + score.title[1:]
        yield title, Cell(share(score.value), between(score.interval, share))
    if learning.task != "regression":
        yield "Loss, nats", Cell(plain(learning.loss))
    for probe in run.forgetting:
        interval = between(probe.ci95, signed)
        yield f"Forgetting, {probe.name}, {probe.unit}", Cell(signed(probe.forgetting), interval)
        yield f"Verdict, {probe.name}", Cell(probe.verdict or NOT_MEASURED)
    if len(run.forgetting):
        off = run.forgetting.controls.get("adapter_off_forgetting")
        yield "Adapter off (control, must be 0)", Cell(NOT_MEASURED if off is None else f"{off:g}")
    yield "Training time", Cell(seconds(cost.train_seconds))
    yield "Peak memory", Cell(size(cost.peak_memory_bytes))
    if cost.latency_median_ms is not None:
        late = f"95% below {milliseconds(cost.latency_p95_ms)}, on {cost.latency_device}"
        yield "Latency, one text", Cell(milliseconds(cost.latency_median_ms), late)
    yield "File size", Cell(size(cost.artifact_bytes))
    yield "Trainable parameters", Cell(count(cost.trainable_parameters))
    yield "All parameters", Cell(count(cost.total_parameters))
