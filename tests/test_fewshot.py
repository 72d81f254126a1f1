"""Few-shot: the base prompted without any training, and training on k rows of each label."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bases import write_base
from sklearn.metrics import log_loss

import peftune
from peftune.baselines.few_shot import FewShot
from peftune.baselines.measure import Prompting, measure_prompted
from peftune.baselines.prompting import Answers, Questions, ask
from peftune.cli.main import _exit_code
from peftune.data.rows import Rows
from peftune.data.splits import per_label
from peftune.data.task_data import load_task
from peftune.errors import DataError, OutputFolderError, UsageError
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.prepare import preparation_of, prepare_model
from peftune.recipe import read_recipe, resolve
from peftune.recipe.schema import DataSection
from peftune.strategies import HeadOnly

NAMES = ("bad", "fine", "good")


def numbered(*counts: int) -> Rows:
    """Make rows of so many of each label, in turn."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    ids = tuple(str(index) for index in range(len(labels)))
    return Rows(ids, tuple(f"text {index}" for index in ids), tuple(labels))


# Training on k rows of each label.


def test_as_many_rows_of_each_label_are_kept_in_the_order_of_the_file() -> None:
    """However frequent a label is; the seed decides which rows, and nothing else does."""
    rows = numbered(40, 9, 20)

    first, again, other = (per_label(rows, 4, seed=seed, names=NAMES) for seed in (0, 0, 1))

    assert Counter(first.labels) == {0: 4, 1: 4, 2: 4}
    assert list(map(int, first.ids)) == sorted(map(int, first.ids))
    assert first.ids == again.ids
    assert first.ids != other.ids


def test_fewer_rows_of_one_seed_are_among_more() -> None:
    """So that what is learned from 4 and from 16 differs by the rows that were added."""
    rows = numbered(40, 16, 20)

    few, many = (set(per_label(rows, k, seed=0, names=NAMES).ids) for k in (4, 16))

    assert few < many


def test_a_label_with_too_few_rows_is_said_with_their_number() -> None:
    """Nobody learns from fewer rows than were asked for; a label without any counts as well."""
    with pytest.raises(DataError) as caught:
        per_label(numbered(40, 3), 4, seed=0, names=NAMES)

    assert str(caught.value) == (
        "data.train_examples_per_label: 4 rows of each label are asked for, but of the rows to learn from "
        "'fine' has 3, 'good' has 0. Ask for fewer, or add rows."
    )


def test_the_recipe_key_limits_the_rows_to_learn_from_alone(tmp_path: Path) -> None:
    """Validation and test rows stay as they are, and none of them is learned."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"t {i}", "label": NAMES[i % 3]}) + "\n" for i in range(90))
    )
    everything = DataSection(train_file=str(path), validation_split=0.2, test_split=0.2)
    few = everything.model_copy(update={"train_examples_per_label": 5})

    whole, task = load_task(everything), load_task(few)

    assert Counter(task.train.labels) == {0: 5, 1: 5, 2: 5}
    assert set(task.train.ids) < set(whole.train.ids)
    assert whole.test is not None
    assert task.test is not None
    assert (list(task.validation.ids), list(task.test.ids)) == (
        list(whole.validation.ids),
        list(whole.test.ids),
    )


# Prompting.


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recipe with a tiny base: 12 rows to learn from, of which two have the text of a test row."""
    folder = tmp_path_factory.mktemp("recipe")
    write_base(folder / "base")
    judged = [f"judged {i}" for i in range(9)]
    texts = {
        "train": [*(f"t {i}" for i in range(10)), "JUDGED  3", "judged 4"],
        "validation": [f"v {i}" for i in range(6)],
        "test": judged,
    }
    for split, rows in texts.items():
        lines = [
            json.dumps({"text": text, "label": NAMES[i % 3]}) + "\n" for i, text in enumerate(rows)
        ]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(
        "version: 1\n"
        "name: tiny\n"
        "model: {name_or_path: ./base, max_length: 12}\n"
        "data: {train_file: train.jsonl, validation_file: validation.jsonl, test_file: test.jsonl}\n"
        "strategy: {name: lora}\n"
        "training: {use_cpu: true}\n"
        "output_dir: out\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def found(recipe: Path) -> FewShot:
    """Prompt the base with no example and with one."""
    return peftune.fewshot(recipe, shots=(0, 1))


def test_the_figures_are_those_of_a_comparison(recipe: Path, found: FewShot) -> None:
    """The verb measures what a comparison measures: the same rows, examples and calibration."""
    chosen = resolve(read_recipe(recipe))
    task = load_task(chosen.data)
    others = dataclasses.replace(task, train=task.train.take(range(10)))

    [none, one] = measure_prompted(chosen, others, Prompting(shots=(0, 1)))

    assert [each.accuracy for each in found.prompted] == [none.accuracy, one.accuracy]
    assert [each.predicted for each in found.prompted] == [none.predicted, one.predicted]
    assert found.majority.accuracy == 3 / 9
    assert (found.split, found.rows_judged, found.rows_asked) == ("test", 9, 9)


def test_no_example_has_the_text_of_a_judged_row(recipe: Path, found: FewShot) -> None:
    """However it is written; such train rows are left out and counted, and all others may be drawn."""
    all_of_train = peftune.fewshot(recipe, shots=(12,))
    [prompted] = all_of_train.prompted

    drawn = {example for choice in prompted.details["choices"] for example in choice["examples"]}

    assert found.examples_left_out == 2
    assert drawn == {str(index) for index in range(10)}


def test_log_loss_and_calibration_error_stand_beside_the_accuracy(recipe: Path) -> None:
    """Against scikit-learn, from the probabilities of the prompts themselves; before and after calibration."""
    chosen = resolve(read_recipe(recipe))
    task = load_task(chosen.data)
    model = prepare_model(
        chosen.model.name_or_path, HeadOnly(), labels=NAMES, max_length=12, use_cpu=True
    )
    tokenizer = preparation_of(model).tokenizer
    scorer = LanguageModelScorer(model, tokenizer, batch_size=64, share_prefix=True)
    assert task.test is not None
    questions = Questions(task.train, task.test, NAMES, 0, scorer.window, 12)
    answers = ask(scorer, tokenizer, questions, seed=0)
    assert isinstance(answers, Answers)

    [prompted] = peftune.fewshot(recipe, shots=(0,)).prompted

    [choice] = prompted.details["choices"]
    for scores, probabilities in (
        (choice, answers.calibrated),
        (choice["uncalibrated"], answers.probabilities),
    ):
        truth = np.asarray(task.test.labels)
        expected = log_loss(truth, probabilities, labels=[0, 1, 2])
        confidence, right = probabilities.max(-1), probabilities.argmax(-1) == truth
        bins = np.ceil(confidence * 10)
        gaps = [
            (bins == one).mean() * abs(right[bins == one].mean() - confidence[bins == one].mean())
            for one in set(bins)
        ]
        assert scores["log_loss"] == pytest.approx(expected, rel=1e-5)
        assert scores["ece"] == pytest.approx(sum(gaps), rel=1e-5)


@pytest.mark.parametrize("task", ["multi-label", "regression", "language-modeling"])
def test_tasks_without_one_label_a_row_are_refused(task: str, recipe: Path) -> None:
    """Before anything is read; there is no label's name to ask for."""
    with pytest.raises(UsageError) as caught:
        peftune.fewshot(recipe, overrides=[f"task={task}"])

    assert str(caught.value) == (
        f"Few-shot prompting asks for one label a text; it needs task: single-label (the recipe has {task})."
    )


@pytest.mark.parametrize(("shots", "shown"), [((), "none"), ((4, 4), "4, 4"), ((-1,), "-1")])
def test_numbers_of_examples_are_checked(shots: tuple[int, ...], shown: str, recipe: Path) -> None:
    """Each once, and none below zero."""
    with pytest.raises(UsageError) as caught:
        peftune.fewshot(recipe, shots=shots)

    assert (
        str(caught.value) == f"shots are numbers of examples from 0 on, each once (got {shown})."
    )


def test_figures_in_a_folder_are_read_and_not_measured_again(
    recipe: Path, found: FewShot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same seconds prove it; the figures of other numbers of examples are not overwritten."""
    first = peftune.fewshot(recipe, shots=(0, 1), output=tmp_path)
    with caplog.at_level("INFO", logger="peftune"):
        second = peftune.fewshot(recipe, shots=(0, 1), output=tmp_path)
    with pytest.raises(OutputFolderError) as caught:
        peftune.fewshot(recipe, shots=(0,), output=tmp_path)

    file = tmp_path / "fewshot.json"
    assert json.dumps(second.as_json()) == json.dumps(first.as_json())
    assert [one.accuracy for one in second.prompted] == [one.accuracy for one in found.prompted]
    assert f"'{file}' holds these figures already; they are not measured again" in caplog.messages
    assert str(caught.value) == (
        f"'{file}' holds the figures of another recipe, base or number of examples, or damaged ones. Choose another folder with --output, or remove it."
    )


def test_the_verb_prints_a_table_with_the_majority_beside_it(
    recipe: Path, found: FewShot, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every figure stands in its row; nothing is said on the way where there is no terminal."""
    code = _exit_code(["fewshot", str(recipe), "--shots", "0,1"])
    shown = capsys.readouterr()

    assert code == 0
    lines = shown.out.splitlines()
    assert lines[0].split() == [
        "accuracy",
        "macro",
        "F1",
        "log",
        "loss",
        "ECE",
        "uncalibrated",
        "fitted",
        "choices",
        "seconds",
    ]
    assert lines[1].startswith("majority class  0.333 [")
    for line, baseline in zip(lines[2:4], found.prompted, strict=True):
        assert line.startswith(f"{baseline.details['shots']} examples")
        assert f"{baseline.accuracy:.3f} [" in line
    assert "No prompt is clearly above the majority class (0.333)." in lines
    assert "Asked about 9 of 9 test rows; the examples are train rows." in lines
    assert "Left out of the examples: 2 train rows whose text is among the test rows." in lines
    assert "it/s" not in shown.err


def test_the_verb_prints_json_for_programs(
    recipe: Path, found: FewShot, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of Python, without the single rows."""
    assert _exit_code(["fewshot", str(recipe), "--shots", "0,1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)

    expected = json.loads(json.dumps(found.as_json()))
    for one in (*values["prompted"], *expected["prompted"]):
        assert "rows" not in one
        del one["seconds"]
    assert values == expected
