"""The curves go to the programs that follow them, and a missing program is said at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import peftune
from peftune.errors import RecipeError, UsageError
from peftune.experiments import Run
from peftune.recipe import read_recipe
from peftune.training.callbacks import refuse_missing_trackers

WATCH = '{probe: {type: lm-loss, name: watched, dataset_name: "bundled:general-text", split: validation, max_documents: 4}}'


def overrides(base: Path, *more: str) -> list[str]:
    """Make the quickstart one of a few steps, watched while it trains."""
    return [
        f"model.name_or_path={base}",
        "data.max_train_examples=32",
        "data.max_validation_examples=20",
        "data.max_test_examples=20",
        "forgetting.probes=[]",
        f"forgetting.during_training={WATCH}",
        "training.num_train_epochs=2",
        "training.logging_steps=1",
        "training.use_cpu=true",
        *more,
    ]


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a small recipe that reports to TensorBoard."""
    return peftune.run(
        "quickstart",
        overrides=overrides(tiny_base, "training.report_to=[tensorboard]"),
        output=tmp_path_factory.mktemp("tracked") / "out",
    )


@pytest.fixture(scope="module")
def events(run: Run) -> EventAccumulator:
    """Read the event file as TensorBoard does."""
    [file] = (run.folder / "checkpoints").glob("runs/*/events.out.tfevents.*")
    found = EventAccumulator(str(file))
    found.Reload()
    return found


@pytest.mark.costly
@pytest.mark.parametrize(
    ("tag", "key"),
    [
        ("train/loss", "train_loss"),
        ("train/learning_rate", "learning_rate"),
        ("eval/loss", "validation_loss"),
        ("eval/accuracy", "validation_accuracy"),
        ("eval/macro_f1", "validation_macro_f1"),
        ("eval/forgetting_watched", "forgetting_watched"),
    ],
)
def test_tensorboard_holds_the_curve_of_the_report(
    tag: str, key: str, run: Run, events: EventAccumulator
) -> None:
    """Loss, metrics and forgetting, at the same steps, to single precision."""
    expected = [(point["step"], point[key]) for point in run.learning.curve if key in point]

    found = [(event.step, event.value) for event in events.Scalars(tag)]

    assert len(expected) >= 2
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [value for _, value in found] == pytest.approx(
        [value for _, value in expected], rel=1e-6
    )


def test_the_event_file_lies_in_the_private_part_of_the_run_folder(run: Run) -> None:
    """It holds paths and the name of the machine; what is shared holds neither."""
    assert {path.name for path in run.folder.iterdir()} == {
        "recipe.yaml",
        "report.json",
        "report.html",
        "report.md",
        "report.csv",
        "adapter",
        "predictions.jsonl",
        "texts.jsonl",
        "documents.jsonl",
        "checkpoints",
    }


def test_forgetting_stands_once_in_the_curve(run: Run) -> None:
    """What is sent on is not recorded again."""
    steps = [point["step"] for point in run.learning.curve if "forgetting_watched" in point]

    assert steps == [2, 4]


def test_a_missing_program_is_named_before_anything_is_trained(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the packages and the command; the run folder says so as well."""
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    chosen = overrides(tiny_base, "training.report_to=[tensorboard, wandb, mlflow]")

    with pytest.raises(UsageError) as caught:
        peftune.run("quickstart", overrides=chosen, output=tmp_path / "out")

    assert str(caught.value) == (
        "training.report_to names packages that are not installed: wandb, mlflow. "
        "Run 'pip install wandb mlflow', or set training.report_to: none."
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["status"], report["reason"]) == ("failed", str(caught.value))
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize("report_to", ["none", "tensorboard", ("tensorboard",)])
def test_a_program_that_is_there_is_not_refused(report_to: str | tuple[str, ...]) -> None:
    """None needs nothing, and TensorBoard is installed for the tests."""
    refuse_missing_trackers(report_to)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_each_missing_program_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    for module in (name, "tensorboardX"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(UsageError) as caught:
        refuse_missing_trackers(name)

    assert str(caught.value) == (
        f"training.report_to names a package that is not installed: {name}. "
        f"Run 'pip install {name}', or set training.report_to: none."
    )


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("[wandb, wandb]", "training.report_to: must name each program once."),
        (
            "[tensorboard, wanda]",
            "training.report_to[1]: must be 'tensorboard', 'wandb', 'mlflow' or 'trackio' (got 'wanda'). Did you mean 'wandb'?",
        ),
    ],
)
def test_a_wrong_list_of_programs_is_refused(written: str, fault: str) -> None:
    """Twice the same program, and one that is none."""
    with pytest.raises(RecipeError) as caught:
        read_recipe("quickstart", [f"training.report_to={written}"])
    assert str(caught.value).splitlines()[0] == (
        f"command line 'training.report_to={written}': {fault}"
    )
