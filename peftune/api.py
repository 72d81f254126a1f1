"""The public function of each verb of the command line; each does all that the verb does.

`run`, `compare`, `forget`, `predict` and `validate` are here: they put a measurement, its report
and its gate together. `check`, `plan`, `tune`, `fewshot`, `evaluate`, `learning_curve` and `report`
are whole where they lie, and `peftune/__init__.pyi` names their place. Light: each function imports
what it needs, so that validating a recipe loads no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from peftune.errors import GateError, UsageError

if TYPE_CHECKING:
    from peftune.adapters.classifier import Text
    from peftune.data.in_memory import RowsInMemory
    from peftune.experiments import Run
    from peftune.experiments.compare import Comparison
    from peftune.experiments.forget import MeasuredForgetting
    from peftune.probes import Probe
    from peftune.recipe import Overrides, Recipe
    from peftune.strategies import StrategyChoice
    from peftune.tasks.base import Prediction

STRATEGIES = ("full", "lora", "lora-8bit")
"""What is compared by default."""

GENERAL_TEXT = "bundled:general-text"
"""What forgetting is measured on by default."""


def run(
    recipe: str | Path | Recipe,
    *,
    overrides: Overrides = (),
    strategy: StrategyChoice | None = None,
    output: str | Path | None = None,
    data: RowsInMemory | None = None,
) -> Run:
    """Run one recipe with one strategy and one seed, and write its report.

    A folder that holds an unfinished run of the same recipe is resumed from its last whole
    checkpoint; a finished one is read, not run again. One process at a time runs in a folder.

    Args:
        recipe: path or shipped name; or a `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments, such as `training.seed=1`; or a mapping of such keys to
            values.
        strategy: put in the place of the recipe's own: `peftune.LoRA(r=4)`, or a name, which
            keeps the hyper-parameters that the recipe sets and that both strategies have.
        output: run folder, in the place of the recipe's `output_dir`.
        data: rows in the place of the recipe's own: a pandas DataFrame, a `datasets` data set, or
            a dict with one for each split. They are kept in the folder's `data/`.

    Returns:
        The run, as written to the folder's `report.json`; `run.report` is the page for people.

    Raises:
        GateError: the run forgot more than `forgetting.budget`. It is kept, and is `error.run`.
        PeftuneError: with one line that says what is wrong and what to do.
    """
    from peftune.experiments import run as run_recipe
    from peftune.experiments.report import check_budget
    from peftune.experiments.run_evidence import read_evidence
    from peftune.recipe import read_recipe
    from peftune.reporting import write_reports

    chosen = read_recipe(recipe, overrides, strategy=strategy)
    result = run_recipe(chosen, output=output, data=data)
    write_reports(None, [read_evidence(result.folder)], (), result.folder)
    try:
        check_budget([result], chosen.forgetting.budget)
    except GateError as error:
        error.run = result
        raise
    return result


def compare(
    recipe: str | Path | Recipe,
    *,
    strategies: Sequence[StrategyChoice] = STRATEGIES,
    seeds: Sequence[int] = (0,),
    overrides: Overrides = (),
    output: str | Path | None = None,
    jobs: int = 1,
) -> Comparison:
    """Run what is missing of strategies x seeds, write the report, and say which strategy to use.

    Every run has a process of its own, so that none inherits memory, random state or a crash from
    another. A finished run of the same resolved recipe is read, an unfinished one resumed. A run
    that fails does not stop the others: it is among the comparison's `failures`.

    Args:
        recipe: path of a recipe, or name of a shipped one; or a `Recipe`.
        strategies: names or strategies, each of another name.
        seeds: seeds of the training; the rows are the same for all.
        overrides: `key=value` assignments for all runs, or a mapping. A hyper-parameter that only
            some of the strategies have is set in those, with a line in the log.
        output: folder for the runs; otherwise the recipe's `output_dir` with `-compare`.
        jobs: runs at the same time. More than one share the machine, so their seconds are not a comparison.

    Returns:
        The comparison, as written to the folder's `comparison.json`; `comparison.report` is the
        page for people, and each run has one.

    Raises:
        GateError: runs forgot more than `forgetting.budget`. All are kept, in `error.comparison`.
        PeftuneError: the recipe, a strategy or a seed is wrong, or a folder holds another run.
    """
    from peftune.experiments.compare import compare as compare_strategies
    from peftune.experiments.report import check_budget
    from peftune.reporting import write_missing_reports, write_reports

    comparison = compare_strategies(
        recipe,
        strategies=strategies,
        seeds=seeds,
        overrides=overrides,
        output=output,
        jobs=jobs,
    )
    write_missing_reports(comparison.evidence)
    if comparison.runs:
        write_reports(
            comparison.summary,
            comparison.clean,
            comparison.failures,
            comparison.folder,
            findings=comparison.findings,
        )
    try:
        check_budget(comparison.runs, comparison.budget)
    except GateError as error:
        error.comparison = comparison
        raise
    return comparison


def forget(
    artifact: str | Path,
    probes: Sequence[Probe | str] = (GENERAL_TEXT,),
    *,
    base: str | None = None,
    self_test: bool = False,
    use_cpu: bool = False,
) -> MeasuredForgetting:
    """Measure what any adapter or checkpoint forgot, with intervals and controls.

    The base is loaded by itself for "before", in the precision in which the artifact was trained
    on it, so the control (the artifact's model with its adapter disabled) is a second, independent
    way to the same numbers.

    Args:
        artifact: peftune's adapter or model folder, a PEFT LoRA folder, or a plain GPT-2 checkpoint;
            or `user/name@commit` on the hub.
        probes: what to measure: probes, or as the command line names them: a text such as
            `bundled:general-text` or `news.txt`, behind a probe's type to measure something else,
            such as `cloze:lambada.jsonl`.
        base: where the base lies; a plain checkpoint needs it.
        self_test: run the controls of the measurement on this machine, too.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact is damaged, or does not fit the base.
        BaseModelError: the base cannot be found.
        DataError: a probe's text cannot be used.
        GateError: the self-test failed. What was measured is `error.forgetting`.
    """
    from peftune.recipe import read_probe

    chosen = [read_probe(probe) if isinstance(probe, str) else probe for probe in probes]
    from peftune.experiments.forget import forget as measure
    from peftune.experiments.forget import self_test_of

    result = measure(artifact, chosen, base=base, use_cpu=use_cpu)
    if self_test:
        checks = self_test_of(artifact, result, base=base, use_cpu=use_cpu)
        result = dataclasses.replace(result, self_test=checks)
    if failed := [check.name for check in result.self_test if not check.passed]:
        message = f"The self-test failed: {'; '.join(failed)}. Do not use the figures of this machine; report the versions that 'peftune env' prints."
        error = GateError(message)
        error.forgetting = result
        raise error
    return result


@overload
def predict(
    artifact: str | Path,
    texts: Sequence[Text] | None = ...,
    *,
    file: str | Path | None = ...,
    text_column: str | None = ...,
    output: None = ...,
    base: str | None = ...,
    use_cpu: bool = ...,
) -> list[Prediction]: ...


@overload
def predict(
    artifact: str | Path,
    texts: Sequence[Text] | None = ...,
    *,
    file: str | Path | None = ...,
    text_column: str | None = ...,
    output: str | Path,
    resume: bool = ...,
    base: str | None = ...,
    use_cpu: bool = ...,
) -> Path: ...


def predict(
    artifact: str | Path,
    texts: Sequence[Text] | None = None,
    *,
    file: str | Path | None = None,
    text_column: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    base: str | None = None,
    use_cpu: bool = False,
) -> list[Prediction] | Path:
    """Load an artifact and classify texts with it, in order.

    To classify more than once, keep what `peftune.load` returns.

    Args:
        artifact: a run folder, the adapter or model folder in it, or `user/name@commit` on the hub.
        texts: strings, or pairs of strings for a model of text pairs.
        file: texts in the place of `texts`: .txt (one a line), csv, tsv, json, jsonl or parquet.
        text_column: column of the texts in `file`, in the place of the one of the training data.
        output: file that the predictions are written to, one JSON line per text, a few thousand
            texts at a time.
        resume: go on from what an interrupted call wrote to `output`.
        base: where the base lies, if not under the name in the manifest.
        use_cpu: stay on the CPU even where there is a GPU.

    Returns:
        The predictions; with `output` the file that holds them.

    Raises:
        ArtifactError: the artifact is refused.
        BaseModelError: the base cannot be found.
        DataError: the file cannot be read.
        UsageError: neither or both of `texts` and `file` are given, `texts` is one string instead
            of a list of them, or `output` cannot be resumed.
    """
    from peftune.adapters.loading import load
    from peftune.experiments import predictions_file

    if (texts is None) == (file is None):
        message = "predict takes either texts or a file. Give one of the two."
        raise UsageError(message)
    if resume and (file is None or output is None):
        message = "resume goes on with a file that is written to output. Name both."
        raise UsageError(message)
    written = None
    if output is not None:
        written = predictions_file.writable_output(Path(output), resume=resume)
    classifier = load(artifact, base=base, use_cpu=use_cpu)
    chosen: Sequence[Text] = texts or []
    if file is not None:
        chosen = predictions_file.read_texts_for(classifier, Path(file), text_column=text_column)
    if written is None:
        return classifier.predict(chosen)
    predictions_file.write_answers(written, classifier, chosen, resume=resume)
    return written


def validate(recipe: str | Path | Recipe, *, overrides: Overrides = ()) -> Recipe:
    """Check a recipe against the schema, without loading a model or reading data.

    Args:
        recipe: path or shipped name; or a `Recipe`.
        overrides: `key=value` assignments, or a mapping of keys to values.

    Returns:
        The recipe with every default filled in.

    Raises:
        RecipeError: all faults of the recipe, each with its place.
    """
    from peftune.recipe import read_recipe, resolve

    return resolve(read_recipe(recipe, overrides))
