"""Title, answer, runs, findings and origin of a report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peftune.experiments.report import Run
from peftune.experiments.run_folder import RECIPE
from peftune.findings.evidence import unstable_across_seeds
from peftune.findings.finding import Finding
from peftune.reporting.contents import (
    Block,
    Cell,
    Code,
    Fold,
    Paragraph,
    Section,
    Subject,
    Table,
    Tone,
    title_of,
)
from peftune.stats.formats import (
    NOT_MEASURED,
    between,
    count,
    listed,
    milliseconds,
    plain,
    seconds,
    share,
    signed,
    size,
)
from peftune.tasks.scores import headline_scores, learned_something

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
    """Return the line that names base, rows and seeds."""
    if not subject.runs:
        return ""
    bases = listed(list(dict.fromkeys(run.run.base_model for run in subject.runs)))
    learning = subject.runs[0].learning
    seeds = sorted({run.run.seed for run in subject.runs})
    word = "seed" if len(seeds) == 1 else "seeds"
    return f"Base {bases} · {learning.n:,} {learning.split} rows · {word} {listed(list(map(str, seeds)))}"


def answer_of(subject: Subject) -> str:
    """Return the answer of the comparison, or the measurements of a single run, in one sentence."""
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
    return f"{learned} and forgets {forgotten}; the intervals are over rows and documents, of {_models(run)} alone."


def run_section(subject: Subject) -> Section:
    """Build the table of a single run."""
    runs = subject.runs if subject.summary is None else ()
    return Section("runs", "The run" if len(runs) == 1 else "The runs", runs_table(runs))


def runs_table(runs: Sequence[Run]) -> list[Block]:
    """Build the table of the numbers of single runs: a column for one, a row each for several."""
    if not runs:
        return []
    facts = [dict(_facts(run)) for run in runs]
    names = list(dict.fromkeys(name for known in facts for name in known))
    note = f"Below a number: its 95% interval over rows or documents, of {_models(runs[0])} alone; another seed gives another."
    if len(runs) == 1:
        rows = [[Cell(name), cell] for name, cell in facts[0].items()]
        return [Table(title_of(runs[0]), ["Figure", "Value"], rows, "lr", note)]
    rows = [
        [Cell(title_of(run)), *(known.get(name, Cell(NOT_MEASURED)) for name in names)]
        for run, known in zip(runs, facts, strict=True)
    ]
    align = "l" + "r" * len(names)
    return [Table("Each run by itself", ["Run", *names], rows, align, note, cards=True)]


def _models(run: Run) -> str:
    return "the models of these folds" if run.folds else "this one model"


def _facts(run: Run) -> Iterator[tuple[str, Cell]]:
    learning, cost = run.learning, run.cost
    for score in headline_scores(learning):
        title = score.title[0].upper() + score.title[1:]
        yield title, Cell(share(score.value), between(score.interval, share))
    if not learning.task_type.numeric:
        yield "Loss, nats", Cell(plain(learning.loss))
    for probe in run.forgetting:
        interval = between(probe.ci95, signed)
        yield f"Forgetting, {probe.name}, {probe.unit}", Cell(signed(probe.forgetting), interval)
        yield f"Verdict, {probe.name}", Cell(probe.verdict or NOT_MEASURED)
    if len(run.forgetting):
        off = run.forgetting.controls.get("adapter_off_forgetting")
        yield (
            "Adapter disabled (control, must be 0)",
            Cell(NOT_MEASURED if off is None else f"{off:g}"),
        )
    yield "Training time", Cell(seconds(cost.train_seconds))
    yield "Peak memory", Cell(size(cost.peak_memory_bytes))
    if cost.latency_median_ms is not None:
        late = f"95% below {milliseconds(cost.latency_p95_ms)}, on {cost.latency_device}"
        yield "Latency, one text", Cell(milliseconds(cost.latency_median_ms), late)
    yield "File size", Cell(size(cost.artifact_bytes))
    yield "Trainable parameters", Cell(count(cost.trainable_parameters))
    yield "All parameters", Cell(count(cost.total_parameters))


def origin_section(subject: Subject) -> Section:
    """Build the recipes of the runs, their environment and their hashes."""
    if not subject.runs:
        return Section("origin", "Recipes and environment", [])
    blocks: list[Block] = [_identities(subject)]
    blocks += [
        Fold(f"Recipe of {title_of(run)}", [Code(recipe)])
        for run in subject.runs
        if (recipe := _recipe(run)) is not None
    ]
    blocks.append(Fold("Environment", [_environment(subject)]))
    return Section("origin", "Recipes and environment", blocks)


def _recipe(run: Run) -> str | None:
    path = run.folder / RECIPE
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _identities(subject: Subject) -> Table:
    return Table(
        caption="What was run",
        columns=["Run", "Base", "Base's hash", "Recipe's hash", "Rows' hash", "Batches' hash"],
        rows=[
            [
                Cell(title_of(run), series=subject.series(run.run.strategy)),
                Cell(run.run.base_model),
                *(
                    Cell(value[:12])
                    for value in (
                        run.run.base_fingerprint,
                        run.run.recipe_sha256,
                        run.run.data_fingerprint,
                        run.run.order_sha256 or NOT_MEASURED,
                    )
                ),
            ]
            for run in subject.runs
        ],
        align="llllll",
        cards=True,
        note="The first twelve digits of each SHA-256; report.json of each run has all of them. Runs whose batches have one hash read the same rows in the same order.",
    )


def _environment(subject: Subject) -> Table:
    """Show each value once where the runs agree, and by run where they do not."""
    facts = [dict(_flat(run.environment)) for run in subject.runs]
    rows = []
    for key in dict.fromkeys(key for known in facts for key in known):
        values = [known.get(key, NOT_MEASURED) for known in facts]
        if len(set(values)) == 1:
            text = values[0]
        else:
            named = zip(subject.runs, values, strict=True)
            text = "; ".join(f"{title_of(run)}: {value}" for run, value in named)
        rows.append([Cell(key), Cell(text)])
    return Table("Environment of the runs", ["What", "Value"], rows, "lt")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}, ")
        else:
            yield name, NOT_MEASURED if value is None else str(value)


def repeat_section(subject: Subject) -> Section:
    """Build the commands that make these runs and this page again."""
    if not subject.runs:
        return Section("repeat", "How to repeat", [])
    folders = [shlex.quote(run.folder.name or "RUN") for run in subject.runs]
    runs = "\n".join(
        f"peftune run {folder}/{RECIPE} --output again-{folder}" for folder in folders
    )
    return Section(
        "repeat",
        "How to repeat",
        [
            Paragraph(
                "Each run folder holds its recipe with every default filled in. From the folder that holds them, with the versions of the environment above:"
            ),
            Code(runs),
            Paragraph("This page is made from the run folders alone, without training:"),
            Code(f"peftune report {' '.join(folders)} --output report"),
        ],
    )


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
    """Return the alerts at the top: failures and findings that make numbers meaningless."""
    alerts: list[Paragraph] = []
    if subject.failures:
        failed = listed([f"{one.strategy}, seed {one.seed}" for one in subject.failures])
        text = f"{failed} did not finish; the figures below are of the others."
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
    """Return the messages of a finding in one run, or the names of several runs that show it."""
    runs = [run for _, shown in found for run in shown]
    alone = len(subject.runs) == 1 or len(runs) < len(found)
    if alone or len(runs) == 1:
        where = "" if alone else f"{_named(runs)}: "
        return where + " ".join(dict.fromkeys(finding.message for finding, _ in found))
    every = "every run" if len(runs) == len(subject.runs) else _named(runs)
    return f"Seen in {every}."


def _found(subject: Subject) -> Iterator[tuple[Finding, Sequence[Run]]]:
    """Yield the findings of the comparison, of the runs, and across the seeds of a strategy."""
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
