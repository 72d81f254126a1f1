"""What a report is about: a comparison, or runs on their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from peftune.compare.jobs import Failure
from peftune.compare.summary import Summary
from peftune.diagnosis import Finding
from peftune.runs.evidence import Evidence
from peftune.runs.report import Run


@dataclass(frozen=True)
class Subject:
    """A summary, if there is one, with the runs that it rests on.

    Args:
        summary: what the comparison says; None for runs that are only shown.
        evidence: the finished runs.
        failures: the runs that did not finish.
        findings: what was found in the comparison as a whole; those of single runs are theirs.
    """

    summary: Summary | None
    evidence: Sequence[Evidence]
    failures: Sequence[Failure]
    findings: Sequence[Finding] = ()

    @cached_property
    def strategies(self) -> Sequence[str]:
        """Names of the strategies, in the order of the summary."""
        first = [] if self.summary is None else [s.strategy for s in self.summary.standings]
        return tuple(dict.fromkeys([*first, *(run.run.strategy for run in self.runs)]))

    @cached_property
    def runs(self) -> Sequence[Run]:
        """The reports of the finished runs."""
        return tuple(item.run for item in self.evidence)

    @cached_property
    def by_strategy(self) -> Mapping[str, Sequence[Evidence]]:
        """The runs of each strategy that has any, by seed."""
        grouped = {
            strategy: sorted(
                (item for item in self.evidence if item.run.run.strategy == strategy),
                key=lambda item: item.run.run.seed,
            )
            for strategy in self.strategies
        }
        return {strategy: items for strategy, items in grouped.items() if items}

    @cached_property
    def probes(self) -> Sequence[str]:
        """Names of the probes, in the order of the recipe."""
        return tuple(dict.fromkeys(probe.name for run in self.runs for probe in run.forgetting))

    def series(self, strategy: str) -> int:
        """Return the number of a strategy, which picks its colour and marker."""
        return self.strategies.index(strategy)

    def unit(self, probe: str) -> str:
        """Return the unit of a probe."""
        return next(
            result.unit for run in self.runs for result in run.forgetting if result.name == probe
        )


def title_of(run: Run) -> str:
    """Name a run: `lora, seed 0`."""
    return f"{run.run.strategy}, seed {run.run.seed}"


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does: `full, lora and lora-8bit`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
