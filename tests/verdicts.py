"""What peftune says of planted scenarios, as a page that a person reads in five minutes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from planted_runs import Scenario, Strategy

from peftune.experiments.compare.clean_rows import clean_rows
from peftune.experiments.compare.figures import ACCURACY, forgetting_key, pitfalls_found
from peftune.experiments.compare.summarize import summarize
from peftune.experiments.compare.summary import (
    Difference,
    Standing,
    Summary,
    baseline_rows,
    standing_rows,
)
from peftune.experiments.report import Run
from peftune.experiments.run_evidence import Evidence
from peftune.findings.finding import Finding
from peftune.reporting.contents import Subject
from peftune.reporting.overview import _found, _named
from peftune.stats.formats import listed

PAGE = Path(__file__).parent / "golden" / "verdicts.md"
WRITE_ANEW = "python tools/write_verdicts.py"
FORGETTING = forgetting_key("text")

_HEAD = f"""\
# What peftune says where the truth is known

Written by `{WRITE_ANEW}`, and compared by `tests/test_verdict_scenarios.py`: do not edit. Rows, documents and paths are drawn from
seeded generators (`tests/planted_runs.py`); all that follows is what peftune's own functions make of them. What must hold whatever
the wording is the table in `tests/scenarios.py`.

*Planted* is the accuracy over all rows and the loss in bits per byte over all documents, of which the runs are draws; brackets are 95%
intervals, and parentheses the figures of each of two seeds. Strategies that share a letter are not significantly different. *Read at* is forgetting
at an equal accuracy. A finding is written out where its code comes up first.
"""


@dataclass(frozen=True)
class Said:
    """What peftune says of a scenario.

    Args:
        scenario: what was planted.
        evidence: its runs.
        summary: the comparison.
    """

    scenario: Scenario
    evidence: Sequence[Evidence]
    summary: Summary

    @classmethod
    def of(cls, scenario: Scenario) -> Said:
        """Let peftune compare the runs of a scenario."""
        evidence = scenario.evidence()
        summary = summarize(
            evidence, baselines=scenario.world.baselines, held_equal=scenario.held_equal
        )
        return cls(scenario, evidence, summary)

    @cached_property
    def findings(self) -> list[tuple[Finding, Sequence[Run]]]:
        """What a report lists: findings of the comparison, of runs, and of seeds."""
        clean = clean_rows(self.evidence, self.scenario.world.baselines)
        found = pitfalls_found(clean.evidence, clean.baselines)
        subject = Subject(self.summary, self.evidence, self.scenario.failures, found)
        return list(_found(subject))

    @property
    def names(self) -> list[str]:
        """The strategies, as they were planted."""
        return [one.name for one in self.scenario.strategies]

    @property
    def used(self) -> list[str]:
        """The strategies that the answer says to use: all that is read of its wording."""
        before = r"\b[Uu]se (?:[\w-]+(?:, | or | and ))*"
        return [
            name
            for name in self.names
            if re.search(rf"{before}{re.escape(name)}(?![\w-])", self.summary.answer)
        ]

    def standing(self, name: str) -> Standing:
        """Return what is said of a strategy."""
        return next(one for one in self.summary.standings if one.strategy == name)

    def runs(self, name: str) -> list[Run]:
        """Return the runs of a strategy."""
        return [one.run for one in self.evidence if one.run.run.strategy == name]

    def differences(self, *, matched: bool = True) -> Iterator[Difference]:
        """Give every difference that is told, those at equal accuracy too."""
        yield from self.summary.differences
        if matched:
            yield from (pair for one in self.summary.matched for pair in one.differences)

    def equal_pairs(self) -> Iterator[tuple[str, Difference]]:
        """Give the tested differences that are planted as none, with what they are in."""
        planted = {one.name: one for one in self.scenario.strategies}
        measured = [(pair.key, pair) for pair in self.summary.differences]
        matched = [
            ("forgetting at equal accuracy", pair)
            for one in self.summary.matched
            for pair in one.differences
        ]
        for what, pair in [*measured, *matched]:
            first, second = planted[pair.first], planted[pair.second]
            as_accurate = _accurate(first) == _accurate(second)
            as_forgetful = (first.forgets, first.off) == (second.forgets, second.off)
            equal = {ACCURACY: as_accurate, FORGETTING: as_forgetful}
            if pair.p_value is not None and equal.get(what, as_accurate and as_forgetful):
                yield what, pair

    def gap(self, first: str, second: str, key: str) -> Difference:
        """Return the difference of two strategies in a figure, as it was measured."""
        return next(
            pair
            for pair in self.differences(matched=False)
            if pair.key == key and {pair.first, pair.second} == {first, second}
        )


def page(said: Sequence[Said], wrong: Mapping[str, Sequence[str]]) -> str:
    """Lay out what is said of every scenario.

    Args:
        said: of each scenario.
        wrong: by its name, what is known to be wrong with it today, each in a sentence.
    """
    shown: set[str] = set()
    chapters = [_chapter(one, wrong[one.scenario.name], shown) for one in said]
    return "\n".join([_HEAD, _by_chance(said), "\n".join(_overview(said, wrong)), "", *chapters])


def _by_chance(said: Sequence[Said]) -> str:
    equal = [pair for one in said for _, pair in one.equal_pairs()]
    apart = sum(pair.significant for pair in equal)
    verb = "is" if apart == 1 else "are"
    return f"Of the {len(equal)} differences here that are planted as none, {apart} {verb} called different by chance. The tests allow 1 in 20.\n"


def _overview(said: Sequence[Said], wrong: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield _line(["scenario", "the answer names", "verdicts on runs", "wrong today"])
    yield "|" + "---|" * 4
    for one in said:
        name = one.scenario.name
        verdicts = dict.fromkeys(item.run.forgetting.verdict or "none" for item in one.evidence)
        yield _line(
            [
                f"[{name}](#{name.replace(' ', '-')})",
                listed(one.used) or "-",
                ", ".join(verdicts),
                "yes" if wrong[name] else "-",
            ]
        )


def _chapter(said: Said, wrong: Sequence[str], shown: set[str]) -> str:
    parts = [
        f"## {said.scenario.name.capitalize()}",
        f"**True:** {said.scenario.truth}",
        "\n".join(_table(said)),
        _baselines(said),
        f"**Answer:** {said.summary.answer}",
        *_findings(said, shown),
        *_reasons(said),
        *(
            f"**By chance:** {pair.first} and {pair.second} are planted equal in {what}, and called different (p {pair.p_adjusted:.3f})."
            for what, pair in said.equal_pairs()
            if pair.significant
        ),
        *(f"**Wrong today:** {sentence}." for sentence in wrong),
    ]
    return "\n\n".join(parts) + "\n"


def _table(said: Said) -> Iterator[str]:
    headings = ["", "planted", "accuracy", "letter", "forgetting", "letter", _read_at(said), "learned", "verdicts"]  # fmt: skip
    yield _line(headings)
    yield "|" + "---|" * len(headings)
    shown = standing_rows(said.summary)
    for place, standing in enumerate(said.summary.standings, 1):
        figures = {row[""].strip(): list(row.values())[place] for row in shown}
        planted = next(one for one in said.scenario.strategies if one.name == standing.strategy)
        matched = next((key for key in figures if key.startswith("at an accuracy of")), None)
        yield _line(
            [
                _named(said.runs(standing.strategy)),
                _planted(planted),
                figures["accuracy"],
                figures.get("ties in accuracy", "-"),
                figures["forgetting, text"],
                figures.get("ties in text", "-"),
                figures[matched] if matched else "-",
                "yes" if standing.learned else "no",
                _each([run.forgetting.verdict or "none" for run in said.runs(standing.strategy)]),
            ]
        )


def _accurate(strategy: Strategy) -> tuple[object, ...]:
    return strategy.accuracy, strategy.answers, strategy.collapsed


def _read_at(said: Said) -> str:
    return f"read at {said.summary.matched[0].accuracy:.3f}" if said.summary.matched else "read at"


def _planted(strategy: Strategy) -> str:
    return f"{strategy.accuracy:.2f}, {strategy.forgets:+.3f}"


def _each(words: Sequence[str]) -> str:
    return words[0] if len(set(words)) == 1 else ", ".join(words)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _baselines(said: Said) -> str:
    baselines = [f"{row['baseline']} {row['accuracy']}" for row in baseline_rows(said.summary)]
    return f"**Baselines:** {'; '.join(baselines)}"


def _findings(said: Said, shown: set[str]) -> Iterator[str]:
    """List findings one line a code, written out where it is new."""
    grouped: dict[str, list[tuple[Finding, Sequence[Run]]]] = {}
    for finding, runs in said.findings:
        grouped.setdefault(finding.code, []).append((finding, runs))
    for code, found in grouped.items():
        seen = [run for _, runs in found for run in runs]
        where = f" ({_named(seen)})" if seen else ""
        first = found[0][0]
        whole = "" if code in shown else f": {first.message} {first.advice}"
        yield f"**Finding:** {first.severity}, {code}{where}{whole}"
        shown.add(code)


def _reasons(said: Said) -> Iterator[str]:
    """Say why verdicts are what they are, once where only the numbers differ."""
    reasons: dict[str, list[tuple[str, Run]]] = {}
    for one in said.evidence:
        for reason in _reasons_of(one.run):
            reasons.setdefault(re.sub(r"[\d,.]+", "", reason), []).append((reason, one.run))
    for found in reasons.values():
        yield f"**Reason ({_named([run for _, run in found])}):** {found[0][0]}"


def _reasons_of(run: Run) -> Iterator[str]:
    """Give the reasons that speak of an interval or a verdict: `keys: cause; keys: cause`."""
    for probe in run.forgetting:
        for part in re.split(r"; (?=[a-z0-9_, ]+: )", probe.reason or ""):
            if {"verdict", "ci95"} & set(part.partition(": ")[0].split(", ")):
                yield part
