"""Is more data worth it? Laws that are known, subsets that nest, and a curve from end to end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bases import write_base
from numpy.typing import NDArray

import peftune
from peftune.cli.main import _exit_code
from peftune.data.rows import Rows
from peftune.errors import OutputFolderError, UsageError
from peftune.experiments.learning_curve import nested_order, sizes_of
from peftune.experiments.learning_curve_results import LearningCurve, answer_of, curve_rows
from peftune.stats.power_law import PowerLaw, fit_power_law, gain_interval

SIZES = (100, 200, 400, 800)
ROWS = 500


def wrong_rows(errors: list[float], seed: int) -> NDArray[np.float64]:
    """Draw which rows are wrong, (sizes, 1, rows): a row that a better model misses, a worse one misses too."""
    hardness = np.random.default_rng(seed).random(ROWS)
    return np.array([[hardness < error] for error in errors], dtype=np.float64)


# Subsets.


def labeled(*counts: int) -> Rows:
    """Make rows of so many of each label, shuffled."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    np.random.default_rng(0).shuffle(labels)
    ids = tuple(str(index) for index in range(len(labels)))
    return Rows(ids, ids, tuple(labels))


def test_every_subset_holds_each_label_in_its_share() -> None:
    """The first rows of the order are stratified, however many are taken; rare labels are never missing."""
    rows = labeled(600, 300, 97, 3)

    order = nested_order(rows, seed=0)

    assert sorted(order) == list(range(1000))
    assert order != nested_order(rows, seed=1)
    for size in (4, 10, 125, 500):
        counts = Counter(rows.labels[row] for row in order[:size])
        assert set(counts) == {0, 1, 2, 3}
        for label, of_all in enumerate((600, 300, 97, 3)):
            assert abs(counts[label] - size * of_all / 1000) <= 3


def test_four_sizes_are_the_fewest() -> None:
    """A law of three parameters meets any three points."""
    assert sizes_of(800, (1 / 8, 1 / 4, 1 / 2, 1.0), labels=3) == [100, 200, 400, 800]
    assert sizes_of(30, (0.01, 0.2, 0.5, 1.0), labels=3) == [3, 6, 15, 30]
    with pytest.raises(UsageError) as caught:
        sizes_of(8, (1 / 8, 1 / 4, 1 / 2, 1.0), labels=5)
    assert str(caught.value) == (
        "A learning curve needs 4 numbers of rows, for the law that is fitted has 3 parameters (got 5, 8 of 8 rows). Give more fractions, or add rows."
    )
    with pytest.raises(UsageError) as caught:
        sizes_of(8, (0.5, 1.5), labels=2)
    assert str(caught.value) == "fractions lie above 0 and up to 1 (got 0.5, 1.5)."


# The law.


@pytest.mark.parametrize(("floor", "exponent"), [(0.1, 0.5), (0.0, 0.3), (0.25, 1.0)])
def test_errors_that_follow_a_law_give_it_back(floor: float, exponent: float) -> None:
    """Closed form: with `floor + 0.2 (n / 800)^-c`, doubling gains 0.2 (1 - 2^-c)."""
    errors = [floor + 0.2 * (size / 800) ** -exponent for size in SIZES]

    law = fit_power_law(SIZES, errors)

    assert law is not None
    assert law.gain_of_doubling == pytest.approx(0.2 * (1 - 2**-exponent), abs=1e-3)
    assert [law.error_with(size) for size in SIZES] == pytest.approx(errors, abs=1e-4)


@pytest.mark.parametrize("errors", [[0.3, 0.3, 0.3, 0.3], [0.2, 0.25, 0.3, 0.35]])
def test_errors_that_do_not_fall_promise_nothing(errors: list[float]) -> None:
    """No law may say that more rows do harm, nor that they help where they did not."""
    law = fit_power_law(SIZES, errors)

    assert law is not None
    assert law.gain_of_doubling == pytest.approx(0, abs=1e-3)


def test_the_interval_holds_the_true_gain() -> None:
    """Simulated: in at least 6 of 8 sets of rows, drawn under a law that is known."""
    true = [0.1 + 0.2 * (size / 800) ** -0.5 for size in SIZES]
    gain = 0.2 * (1 - 2**-0.5)

    held = 0
    for seed in range(8):
        interval = gain_interval(SIZES, wrong_rows(true, seed), seed=seed, resamples=60)
        assert interval is not None
        held += interval[0] <= gain <= interval[1]

    assert held >= 6


# The answer.

LAW = PowerLaw(0.1, 0.2, 0.5, 800)


@pytest.mark.parametrize(
    ("interval", "worth", "says"),
    [
        (
            (0.04, 0.08),
            "yes",
            "Is more data worth it? Yes: by the fitted law, doubling the 800 rows lowers the error from 0.300 to 0.241, a gain of 0.059 [0.040, 0.080].",
        ),
        (
            (0.0, 0.004),
            "no",
            "Is more data worth it? No: by the fitted law, doubling the 800 rows lowers the error from 0.300 to 0.241, a gain of 0.059 [0.000, 0.004], less than half a point of accuracy.",
        ),
        (
            (0.001, 0.08),
            "cannot tell",
            "Is more data worth it? Cannot tell: by the fitted law, doubling the 800 rows lowers the error from 0.300 to 0.241, a gain of 0.059 [0.001, 0.080]. More validation rows or more seeds would tell.",
        ),
    ],
)
def test_the_answer_is_that_of_the_interval(
    interval: tuple[float, float], worth: str, says: str
) -> None:
    """Yes where the gain is surely half a point of accuracy, no where it is surely less."""
    assert answer_of(LAW, interval, rows=800, seeds=3) == (worth, says)


def test_one_seed_and_a_failed_fit_are_said() -> None:
    """An interval over rows alone does not speak of other trainings; without a law there is no telling."""
    _, one_seed = answer_of(LAW, (0.04, 0.08), rows=800, seeds=1)

    _, two_seeds = answer_of(LAW, (0.04, 0.08), rows=800, seeds=2)
    assert one_seed == two_seeds
    assert one_seed.endswith(
        " The interval is one over validation rows; another seed may give another."
    )
    assert answer_of(None, None, rows=800, seeds=1) == (
        "cannot tell",
        "Is more data worth it? Cannot tell: no power law fits the errors. Take more sizes or seeds.",
    )


# From end to end.


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recipe whose label is the last letter of the text; there is no such test file."""
    folder = tmp_path_factory.mktemp("recipe")
    write_base(folder / "base")
    draw = np.random.default_rng(0)
    for split, count in (("train", 64), ("validation", 40)):
        lines = []
        for index in range(count):
            word = "".join(draw.choice(list("abcdefgh"), size=6))
            lines.append(json.dumps({"text": word + "xz"[index % 2], "label": "xz"[index % 2]}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(
        "version: 1\n"
        "name: letters\n"
        "model: {name_or_path: ./base, max_length: 16}\n"
        "data: {train_file: train.jsonl, validation_file: validation.jsonl, test_file: none.jsonl}\n"
        "strategy: {name: full}\n"
        "training: {num_train_epochs: 3, per_device_train_batch_size: 8, learning_rate: 3.0e-3, use_cpu: true}\n"
        "output_dir: out\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def curve(recipe: Path) -> LearningCurve:
    """Measure its curve with two seeds."""
    return peftune.learning_curve(recipe, seeds=(0, 1), output=recipe.parent / "curve")


@pytest.mark.slow
def test_a_curve_has_a_point_for_every_size(curve: LearningCurve) -> None:
    """The last with all rows; of two seeds each has its error, and no interval is made of them."""
    assert [size.rows for size in curve.sizes] == [8, 16, 32, 64]
    assert (curve.strategy, curve.validation_rows, curve.seeds) == ("full", 40, (0, 1))
    assert curve.sizes[-1].error < curve.sizes[0].error
    assert curve.sizes[0].gain is None
    for before, size in zip(curve.sizes, curve.sizes[1:], strict=False):
        assert size.gain == pytest.approx(before.error - size.error)
    for size in curve.sizes:
        assert size.error == pytest.approx(sum(size.errors) / 2)
        assert (size.ci95, size.gain_ci95) == (None, None)
    errors = curve_rows(curve)[-1]["error"]
    assert errors == "{:.3f} ({:.3f}, {:.3f})".format(
        curve.sizes[-1].error, *curve.sizes[-1].errors
    )
    assert curve.law is not None
    assert curve.answer.startswith("Is more data worth it? ")


def test_the_folder_holds_the_figures_and_a_plot(curve: LearningCurve) -> None:
    """The file is what Python gives; a training that has finished keeps no checkpoints."""
    values = json.loads((curve.folder / "learning-curve.json").read_text(encoding="utf-8"))
    svg = (curve.folder / "learning-curve.svg").read_text(encoding="utf-8")

    assert values == json.loads(json.dumps(curve.as_json()))
    assert svg.count("<svg") == 1
    assert len(list(curve.folder.glob("n-*-seed*/result.json"))) == 8
    assert not list(curve.folder.glob("n-*/checkpoints"))


@pytest.mark.slow
def test_what_is_finished_is_not_trained_again(recipe: Path, curve: LearningCurve) -> None:
    """The files of the trainings are not written a second time, and the figures are the same."""
    files = sorted(curve.folder.glob("n-*/result.json"))
    times = [file.stat().st_mtime_ns for file in files]

    again = peftune.learning_curve(recipe, seeds=(0, 1), output=curve.folder)

    assert again == curve
    assert [file.stat().st_mtime_ns for file in files] == times


def test_the_trainings_of_another_recipe_are_not_taken_for_its_own(
    recipe: Path, curve: LearningCurve
) -> None:
    """Another learning rate is another curve, and overwrites nothing."""
    with pytest.raises(OutputFolderError) as caught:
        peftune.learning_curve(
            recipe, overrides=["training.learning_rate=1.0e-4"], output=curve.folder
        )

    assert str(caught.value) == (
        f"'{curve.folder / 'n-000008-seed0'}' holds a training of another recipe, base or other rows. Choose another folder with --output, or remove it."
    )


@pytest.mark.parametrize(
    ("overrides", "seeds", "message"),
    [
        (
            ["task=regression"],
            (0,),
            "A learning curve counts wrong labels; it needs task: single-label (the recipe has regression).",
        ),
        ([], (), "A learning curve needs seeds, each once (got none)."),
        ([], (1, 1), "A learning curve needs seeds, each once (got 1, 1)."),
    ],
)
def test_what_has_no_curve_is_refused(
    overrides: list[str], seeds: tuple[int, ...], message: str, recipe: Path, tmp_path: Path
) -> None:
    """Before anything is trained."""
    with pytest.raises(UsageError) as caught:
        peftune.learning_curve(recipe, overrides=overrides, seeds=seeds, output=tmp_path)

    assert str(caught.value) == message


@pytest.mark.slow
def test_the_verb_checks_the_data_and_then_prints_the_curve(
    recipe: Path, curve: LearningCurve, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a size, and the answer last but one; as JSON beside the checks."""
    (recipe.parent / "none.jsonl").write_text(
        '{"text": "qqqqx", "label": "x"}\n{"text": "pppz", "label": "z"}'
    )
    folder = curve.folder  # what has finished there is read
    arguments = ["check", str(recipe), "--learning-curve", "--output", str(folder)]

    assert _exit_code(arguments) == 0
    shown = capsys.readouterr().out
    assert _exit_code([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)

    lines = shown.splitlines()
    heading = next(index for index, line in enumerate(lines) if line.startswith("rows "))
    assert [line.split()[0] for line in lines[heading + 1 : heading + 5]] == [
        "8",
        "16",
        "32",
        "64",
    ]
    assert lines[-2] == values["learning_curve"]["answer"]
    assert lines[-1] == f"Plot: {folder / 'learning-curve.svg'}"
