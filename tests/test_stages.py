"""`stages:`: what is learned first, one after another, and what each of it made the model forget."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kinds import STRATEGIES, recipe, stage, write_documents, write_probe, write_rows

import peftune
from peftune.errors import LeakageError, OutputFolderError, UsageError
from peftune.experiments import Run
from peftune.experiments.compare.comparison import recipe_of_run
from peftune.experiments.stages import StageEnd, blamed
from peftune.forgetting.before_and_after import Before, Measured
from peftune.forgetting.measurement import ProbeText
from peftune.probes import LanguageModelLoss, Measurement, MultipleChoice
from peftune.recipe import resolve, with_strategy
from peftune.reporting.report_writer import report


@pytest.fixture(scope="module")
def staged(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Give a run of three stages: documents, labels of another task, and its own."""
    folder = tmp_path_factory.mktemp("staged")
    stages = [stage(folder, "domain"), stage(folder, "first-task", "single-label")]
    return peftune.run(recipe(folder, base, STRATEGIES["lora"], stages=stages))


@pytest.mark.slow
def test_each_stage_is_a_run_of_its_own(staged: Run) -> None:
    """With its artifact and its report, in its own folder, in order."""
    folders = sorted(path.name for path in (staged.folder / "stages").iterdir())
    runs = [peftune.read_run(staged.folder / "stages" / name) for name in folders]

    assert folders == ["1-domain", "2-first-task"]
    assert [run.learning.task for run in runs] == ["language-modeling", "single-label"]
    assert [run.run.start and run.run.start.task for run in [*runs, staged]] == [
        None,
        "language-modeling",
        "single-label",
    ]
    assert all((run.artifact / "peftune.json").is_file() for run in runs)


def test_the_stages_add_up_to_the_forgetting(staged: Run) -> None:
    """Each is the model after it against the model after the one before, on the same documents."""
    [probe] = staged.forgetting
    stages = staged.forgetting.stages
    domain = peftune.read_run(staged.folder / "stages" / "1-domain")

    assert [(one.name, one.task) for one in stages] == [
        ("domain", "language-modeling"),
        ("first-task", "single-label"),
        ("small", "single-label"),
    ]
    assert sum(one.forgetting["probe"] for one in stages) == pytest.approx(
        probe.forgetting, abs=1e-12
    )
    assert stages[0].forgetting["probe"] == domain.forgetting["probe"].forgetting
    assert stages[0].ci95["probe"] == domain.forgetting["probe"].ci95
    assert staged.forgetting.controls == {"adapter_off_forgetting": 0.0}


@pytest.mark.slow
def test_a_finished_stage_is_not_run_again(staged: Run) -> None:
    """A run that was interrupted goes on with the first stage that has not finished."""
    reports = [
        staged.folder / "stages" / name / "report.json" for name in ("1-domain", "2-first-task")
    ]
    written = [path.stat().st_mtime_ns for path in reports]
    (staged.folder / "report.json").unlink()

    again = peftune.run(peftune.read_recipe(staged.folder / "recipe.yaml"), output=staged.folder)

    assert [path.stat().st_mtime_ns for path in reports] == written
    assert again.forgetting.stages == staged.forgetting.stages
    assert again.learning.loss == staged.learning.loss


def test_the_report_shows_every_stage(staged: Run) -> None:
    """In the Markdown that is made of the run folder alone."""
    text = report(staged.folder).markdown.read_text(encoding="utf-8")

    assert "## Forgetting by stage" in text
    section = text.split("## Forgetting by stage")[1].split("\n## ")[0]
    for name in (
        "domain (language-modeling)",
        "first-task (single-label)",
        "small (single-label)",
    ):
        assert f"| {name} |" in section
    assert "| all together |" in section


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_stages_go_on_from_an_artifact(base: Path, strategy: str, tmp_path: Path) -> None:
    """Its forgetting stands first; also where it becomes the base under every stage."""
    init = peftune.run(recipe(tmp_path, base, STRATEGIES["full"], name="init"))
    stages = [stage(tmp_path, "domain")]

    run = peftune.run(
        recipe(tmp_path, base, STRATEGIES[strategy], init_from=init.artifact, stages=stages)
    )

    [probe] = run.forgetting
    found = run.forgetting.stages
    assert [one.name for one in found] == ["start", "domain", "small"]
    assert found[0].forgetting["probe"] == pytest.approx(
        init.forgetting["probe"].forgetting, abs=1e-9
    )
    assert sum(one.forgetting["probe"] for one in found) == pytest.approx(
        probe.forgetting, abs=1e-12
    )
    assert probe.before == pytest.approx(init.forgetting["probe"].before, rel=1e-12)
    assert run.forgetting.controls == {"adapter_off_forgetting": 0.0}


@pytest.mark.slow
def test_a_finished_run_answers_for_the_rows_of_its_stages(base: Path, tmp_path: Path) -> None:
    """Other documents under the same name are another run."""
    chosen = recipe(
        tmp_path, base, STRATEGIES["lora"], stages=[stage(tmp_path, "domain")], probes=False
    )
    run = peftune.run(chosen)
    write_documents(tmp_path / "domain.jsonl", 21)

    with pytest.raises(OutputFolderError) as caught:
        peftune.run(chosen)

    assert str(caught.value) == (
        f"'{run.folder}' holds this run, but its starting points have changed since. "
        "Choose another output folder with --output, or remove it."
    )
    assert run.forgetting.stages == ()  # without probes there is nothing to share out


def test_a_probe_may_not_be_read_in_a_stage(base: Path, tmp_path: Path) -> None:
    """What a stage has learned by heart is not evidence of what was kept."""
    domain = stage(tmp_path, "domain")
    chosen = recipe(tmp_path, base, STRATEGIES["lora"], stages=[domain])
    text = write_probe(tmp_path / "probe.jsonl").read_text(encoding="utf-8")
    with (tmp_path / "domain.jsonl").open("a", encoding="utf-8") as file:
        file.write(text)

    with pytest.raises(LeakageError, match="the training rows of stage 'domain'"):
        peftune.run(chosen)


def test_a_stage_that_would_learn_nothing_is_refused_before_any_is_run(
    base: Path, tmp_path: Path
) -> None:
    """The strategy is the same for all stages."""
    chosen = recipe(
        tmp_path, base, STRATEGIES["head-only"], stages=[stage(tmp_path, "domain")], probes=False
    )

    with pytest.raises(UsageError, match="trains the classification head alone"):
        peftune.run(chosen)

    assert not (tmp_path / "small").exists()


def test_a_search_does_not_take_stages(base: Path, tmp_path: Path) -> None:
    """Each trial would run them all."""
    chosen = recipe(tmp_path, base, STRATEGIES["lora"], stages=[stage(tmp_path, "domain")])

    with pytest.raises(UsageError) as caught:
        peftune.tune(chosen)

    assert str(caught.value) == (
        "A search trains the recipe's own task alone, and this recipe has stages. "
        "Run them first, and name the last one's artifact in model.init_from in their place."
    )


def test_a_stage_is_blamed_for_the_change_of_its_documents() -> None:
    """Worked out by hand: ratios of sums, and the sign of a probe whose higher values are better."""
    loss = LanguageModelLoss(dataset_name="bundled:general-text", name="loss")
    choice = MultipleChoice(dataset_name="bundled:general-text", name="choice")
    texts = [ProbeText(loss, ("a",) * 10), ProbeText(choice, ("a",) * 10)]
    weight = np.arange(1.0, 11.0)  # 55 in all

    def measured(bits: float, right: float) -> list[Measurement]:
        tokens = np.ones(10, dtype=np.int64)
        return [
            Measurement(weight * bits, weight, tokens),
            Measurement(weight * right, weight, tokens),
        ]

    before = Before(measured(4.0, 0.75), None, {}, cached=False, start=measured(4.25, 0.5))
    found = blamed(
        texts,
        Measured(before, measured(4.125, 0.625), None),
        [],
        name="mine",
        task="single-label",
        start="language-modeling",
    )

    assert [(one.name, one.task) for one in found] == [
        ("start", "language-modeling"),
        ("mine", "single-label"),
    ]
    assert [one.forgetting["loss"] for one in found] == pytest.approx([0.25, -0.125])
    assert [one.forgetting["choice"] for one in found] == pytest.approx([0.25, -0.125])
    assert found[0].ci95["loss"] == pytest.approx((0.25, 0.25))  # the same for every document


def test_a_run_that_began_as_its_base_has_no_stages() -> None:
    """There is nothing to share out."""
    probe = LanguageModelLoss(dataset_name="bundled:general-text")
    one = [Measurement(np.ones(10), np.ones(10), np.ones(10, dtype=np.int64))]
    measured = Measured(Before(one, None, {}, cached=False), one, None)

    assert (
        blamed(
            [ProbeText(probe, ("a",) * 10)],
            measured,
            [StageEnd("x", "single-label", {})],
            name="mine",
            task="single-label",
            start=None,
        )
        == []
    )


def test_stages_are_found_beside_the_recipe(tmp_path: Path) -> None:
    """Their files are named from the recipe's folder, as the recipe's own are."""
    write_rows(tmp_path / "rows.jsonl")
    write_documents(tmp_path / "domain.jsonl")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "version: 1\nname: x\nmodel: {init_from: ./other/adapter}\n"
        "stages:\n  - {name: domain, data: {train_file: domain.jsonl}}\n"
        "data: {train_file: rows.jsonl}\nstrategy: {name: lora}\noutput_dir: x\n",
        encoding="utf-8",
    )

    read = peftune.read_recipe(path)

    assert read.stages[0].data.train_file == str(tmp_path / "domain.jsonl")
    assert read.stages[0].task == "language-modeling"
    assert read.model.init_from == str(tmp_path / "other" / "adapter")
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["label"] == "a"


def test_a_cell_of_a_comparison_resolved_again_is_the_same(base: Path, tmp_path: Path) -> None:
    """Its process reads it from its folder: the grid's seed is in the stages too, not theirs."""
    whole = recipe(tmp_path, base, STRATEGIES["lora"], stages=[stage(tmp_path, "domain")])

    for name in ("lora", "full"):
        planned = recipe_of_run(with_strategy(whole, name), 3, tmp_path)
        assert resolve(planned) == planned
        assert planned.training.seed == planned.stages[0].training.seed == 3
