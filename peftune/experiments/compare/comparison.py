"""Compare strategies: run what is missing of strategies times seeds, and summarize all runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftune.baselines.baseline import Baseline
from peftune.baselines.measure import kept_baselines
from peftune.display import Block, Displayed, data_frame
from peftune.errors import UsageError
from peftune.experiments import Run
from peftune.experiments.compare.clean_rows import CleanRows, clean_rows
from peftune.experiments.compare.executors import Failure, Jobs
from peftune.experiments.compare.figures import pitfalls_ahead, pitfalls_found
from peftune.experiments.compare.summarize import summarize_clean
from peftune.experiments.compare.summary import Summary
from peftune.experiments.folds import refuse_folds
from peftune.experiments.report import PAGE
from peftune.experiments.run_evidence import Evidence, read_evidence, refuse_mixed_runs
from peftune.experiments.run_folder import claim_folder, owned_run, write_json
from peftune.experiments.run_inputs import inputs_of, read_inputs
from peftune.files.lock import owned
from peftune.files.publishing import sweep
from peftune.files.reading import given_path
from peftune.findings.finding import Finding
from peftune.progress import working
from peftune.recipe import Overrides, Recipe, read_for_each, resolve
from peftune.recipe.resolve import with_seed
from peftune.recipe.schema import CompareSection
from peftune.seeds import MAX_SEED
from peftune.stats.crossed import FEWEST_SEEDS
from peftune.strategies import StrategyChoice
from peftune.strategies.base import name_of

if TYPE_CHECKING:
    import pandas as pd

COMPARISON = "comparison.json"
BASELINES = "baselines.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Displayed):
    """Runs of several strategies and seeds on the same rows.

    Its `repr` is the table and the answer.

    Args:
        folder: where the run folders lie.
        evidence: the finished runs, by strategy and then by seed, as asked for.
        failures: the runs that did not finish.
        baselines: the baselines, on the rows that were not read in training.
        section: what the recipe says of comparisons.
        summary: what the runs say together; None where none finished.
        budget: the recipe's forgetting budget, in bits per byte.
        findings: what makes the comparison less than it seems; those of single runs are theirs.
        clean: the finished runs, their scores on the rows that were not read in training.
    """

    folder: Path
    evidence: Sequence[Evidence]
    failures: Sequence[Failure]
    baselines: Sequence[Baseline]
    section: CompareSection
    summary: Summary | None
    budget: float | None = None
    findings: Sequence[Finding] = ()
    clean: Sequence[Evidence] = ()

    @property
    def runs(self) -> list[Run]:
        """The reports of the finished runs."""
        return [one.run for one in self.evidence]

    @property
    def answer(self) -> str | None:
        """Which strategy to use, in one sentence; None where no run finished."""
        return None if self.summary is None else self.summary.answer

    @property
    def report(self) -> Path:
        """The page for people, `report.html`; `peftune.report(comparison.folder)` writes it again."""
        return self.folder / PAGE

    def _blocks(self) -> Iterator[Block]:
        from peftune.experiments.compare.summary import standing_rows

        yield f"{type(self).__name__} in {self.folder}"
        if self.summary is not None:
            yield standing_rows(self.summary)
            yield self.summary.answer
        for one in self.failures:
            yield f"{one.strategy}, seed {one.seed} failed: {one.message}"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row a run, in the order of strategies and seeds."""
        return data_frame(
            {
                "strategy": run.run.strategy,
                "seed": run.run.seed,
                "accuracy": run.learning.accuracy,
                "macro_f1": run.learning.macro_f1,
                "loss": run.learning.loss,
                **{f"forgetting.{probe.name}": probe.forgetting for probe in run.forgetting},
                "train_seconds": run.cost.train_seconds,
                "peak_memory_bytes": run.cost.peak_memory_bytes,
                "trainable_parameters": run.cost.trainable_parameters,
                "artifact_bytes": run.cost.artifact_bytes,
                "folder": str(run.folder),
            }
            for run in self.runs
        )

    def as_json(self) -> dict[str, Any]:
        """Return the content of `comparison.json`; `folder` is relative to the comparison's."""
        return {
            "runs": [{"folder": run.folder.name, **run.as_json()} for run in self.runs],
            "failures": [dataclasses.asdict(failure) for failure in self.failures],
            "held_equal": self.section.held_equal,
            "budgets": self.section.tuning_budget,
            "ladder": [one.as_entry() for one in self.baselines],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "summary": None if self.summary is None else self.summary.as_json(),
        }


@working("comparing")
def compare(
    recipe: str | Path | Recipe,
    *,
    strategies: Sequence[StrategyChoice],
    seeds: Sequence[int],
    overrides: Overrides = (),
    output: str | Path | None = None,
    jobs: int = 1,
) -> Comparison:
    """Run the missing runs of strategies times seeds, and summarize all of them.

    Every run has a process of its own, so that none inherits memory, random state or a crash from
    another. A finished run of the same resolved recipe is read, an unfinished one resumed; a
    failed one is told and does not stop the others. One process at a time compares in a folder.

    Args:
        recipe: path of a recipe, or name of a shipped one; or a `Recipe`.
        strategies: names or strategies, each of another name.
        seeds: seeds of the training; the rows are the same for all.
        overrides: `key=value` assignments for all runs, or a mapping. A hyper-parameter that only
            some of the strategies have is set in those, with a line in the log.
        output: folder for the runs; otherwise the recipe's `output_dir` with `-compare`.
        jobs: runs at the same time. More than one share the machine, so their seconds are not a comparison.

    Raises:
        PeftuneError: the recipe, a strategy or a seed is wrong, or a folder holds another run.
    """
    _refuse_bad_grid([name_of(choice) for choice in strategies], seeds, jobs)
    recipes = read_for_each(recipe, overrides, strategies)
    chosen = next(iter(recipes.values()))
    if not chosen.task_type.one_label:
        message = f"A comparison reads the accuracy of single-label tasks (this recipe's is {chosen.task}). Run each strategy with peftune run, and read their reports side by side."
        raise UsageError(message)
    refuse_folds(chosen, "A comparison")
    folder = (
        given_path(output, "output")
        if output is not None
        else Path(f"{chosen.output_dir}-compare")
    )
    with owned(folder):
        sweep(folder)
        return _compared(chosen, recipes, seeds, folder, jobs)


def _compared(
    chosen: Recipe, recipes: Mapping[str, Recipe], seeds: Sequence[int], folder: Path, jobs: int
) -> Comparison:
    """Run and read the comparison in a folder that this process owns."""
    task, texts, inputs, _ = read_inputs(chosen)
    if (few := few_seeds(len(seeds))) is not None:
        logger.warning("%s", few)
    planned = [recipe_of_run(one, seed, folder) for one in recipes.values() for seed in seeds]
    finished = []
    for one in planned:
        reads = inputs_of(
            one,
            task,
            texts,
            base_fingerprint=inputs.base_fingerprint,
            texts_sha256=inputs.texts_sha256,
            start_sha256=inputs.start_sha256,
        )
        place = Path(one.output_dir)
        with owned_run(place):
            finished.append(claim_folder(place, one, reads))
    ahead = pitfalls_ahead(planned, chosen.compare, rows=len(task.train))
    for finding in ahead:
        logger.warning("%s: %s %s", finding.severity, finding.message, finding.advice)
    outcomes = Jobs(jobs).run(planned, finished)
    evidence = [read_evidence(one.folder) for one in outcomes if isinstance(one, Run)]
    refuse_mixed_runs(
        evidence,
        advice="The data changed between them: choose another --output and run all of them again.",
    )
    clean = clean_rows(evidence, kept_baselines(chosen, task, folder / BASELINES))
    comparison = Comparison(
        folder,
        evidence,
        failures=[outcome for outcome in outcomes if isinstance(outcome, Failure)],
        baselines=clean.baselines,
        section=chosen.compare,
        summary=_summary(clean, chosen.compare),
        budget=chosen.forgetting.budget,
        findings=[*ahead, *pitfalls_found(clean.evidence, clean.baselines)],
        clean=clean.evidence,
    )
    write_json(comparison.as_json(), folder / COMPARISON)
    return comparison


def few_seeds(count: int) -> str | None:
    """Warn before the runs that so few seeds give no verdict; None with three or more."""
    if count >= FEWEST_SEEDS:
        return None
    what = {
        1: "one seed speaks of its models, not of their strategies",
        2: "two seeds cannot tell; three can",
    }
    return f"{what[count]}. The figures will stand there without a verdict; add seeds (such as 0,1,2), now or later: finished runs are kept."


def _summary(clean: CleanRows, section: CompareSection) -> Summary | None:
    if not clean.evidence:
        return None
    budgets = section.tuning_budget or None
    return summarize_clean(clean, held_equal=section.held_equal, budgets=budgets)


def _refuse_bad_grid(strategies: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    for kind, values in (("strategies", strategies), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            message = f"A comparison needs {kind}, each once (got {', '.join(map(str, values)) or 'none'})."
            raise UsageError(message)
    if outside := [seed for seed in seeds if not 0 <= seed <= MAX_SEED]:
        message = f"A seed is a whole number from 0 to {MAX_SEED} (got {outside[0]})."
        raise UsageError(message)
    if jobs < 1:
        message = f"At least one run at a time (got {jobs} jobs)."
        raise UsageError(message)


def recipe_of_run(recipe: Recipe, seed: int, folder: Path) -> Recipe:
    """Return the resolved recipe of one run of a comparison."""
    resolved = with_seed(resolve(recipe), seed)
    path = resolved.forgetting.path or recipe.compare.path
    forgetting = resolved.forgetting.model_copy(update={"path": path})
    place = str(folder / f"{recipe.strategy.name}-seed{seed}")
    return resolved.model_copy(update={"forgetting": forgetting, "output_dir": place})
