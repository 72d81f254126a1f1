"""Shared text: sequences of 13 words, counted by hand; splits that are the same; dropped rows."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from planted import sound_splits, write_recipe, write_splits

import peftune
from peftune.data.cleaning import CleaningCount
from peftune.data.similarity import refuse_overlap, refuse_same_splits, shared_share
from peftune.data.split_tables import read_split_tables
from peftune.data.task_data import load_task
from peftune.errors import LeakageError
from peftune.probes.linear_probe import LabeledText
from peftune.probes.minimal_pairs import MinimalPair
from peftune.probes.multiple_choice import Question
from peftune.recipe import read_recipe
from peftune.recipe.data import DataSection, SplitName


def words(first: int, last: int) -> str:
    """Write a text in which no word comes twice: `w1 w2 w3`, both ends included."""
    return " ".join(f"w{number}" for number in range(first, last + 1))


THIRTEEN = words(1, 13)
TWENTY = words(1, 20)
"""Of 8 sequences of 13 words: from w1, w2, … w8 on."""


@pytest.mark.parametrize(
    ("judged", "read", "share"),
    [
        pytest.param([TWENTY], [TWENTY], 1.0, id="the same text"),
        pytest.param([TWENTY], [words(101, 200)], 0.0, id="another text"),
        pytest.param([TWENTY], [words(3, 16)], 2 / 8, id="14 words of it"),
        pytest.param([TWENTY], [THIRTEEN], 1 / 8, id="13 words of it"),
        pytest.param([TWENTY], [words(1, 12)], 0.0, id="12 words of it, which are not a sequence"),
        pytest.param([words(3, 16)], [TWENTY], 1.0, id="a part of what is read"),
        pytest.param([TWENTY], [f"so {words(3, 16)} so"], 2 / 8, id="quoted inside another text"),
        pytest.param([TWENTY, words(31, 50)], [TWENTY], 8 / 16, id="one of two documents"),
        pytest.param([TWENTY, TWENTY], [TWENTY, TWENTY], 1.0, id="twice, counted once"),
        pytest.param([TWENTY], [words(1, 10), words(11, 20)], 0.0, id="cut between documents"),
        pytest.param(
            [words(1, 12), words(13, 24)], [words(1, 24)], 0.0, id="never across a border"
        ),
        pytest.param(
            [TWENTY], [f"{words(1, 9)} x {words(11, 20)}"], 0.0, id="a word changed in each"
        ),
    ],
)
def test_the_share_is_of_sequences_of_thirteen_words(
    judged: list[str], read: list[str], share: float
) -> None:
    """Of n words in order there are n - 12 sequences; those that are in the other text count."""
    assert shared_share(judged, read) == share


@pytest.mark.parametrize(
    ("judged", "read", "share"),
    [
        pytest.param(["so good"], ["so good"], 1.0, id="the same"),
        pytest.param(["so good"], ["so good it is"], 0.0, id="the beginning of a longer one"),
        pytest.param(["so good", "so bad"], ["so bad", "so so"], 1 / 2, id="one of two"),
        pytest.param(["so good", TWENTY], ["so good"], 1 / 9, id="beside a long one"),
        pytest.param([words(1, 12)], [words(1, 12)], 1.0, id="twelve words"),
        pytest.param(["one"], ["one"], 1.0, id="one word"),
        pytest.param(["", " \n"], ["", "so good"], 0.0, id="blank"),
        pytest.param([], ["so good"], 0.0, id="nothing judged"),
        pytest.param(["so good"], [], 0.0, id="nothing read"),
    ],
)
def test_a_text_of_fewer_words_is_one_sequence(
    judged: list[str], read: list[str], share: float
) -> None:
    """It counts where it is a whole document on both sides, as rows of a task are."""
    assert shared_share(judged, read) == share


def test_case_and_white_space_do_not_matter() -> None:
    """The same words, written and broken otherwise, are the same text."""
    written = "\tW1 w2\n\nW3   w4\u00a0w5 " + words(6, 20).upper() + "\r\n"

    assert shared_share([TWENTY], [written]) == shared_share([written], [TWENTY]) == 1.0


@pytest.mark.parametrize(
    ("document", "read", "share"),
    [
        pytest.param(MinimalPair("so good", "so well"), "so good", 1 / 2, id="a short pair"),
        pytest.param(MinimalPair(TWENTY, words(21, 33)), TWENTY, 8 / 9, id="a long pair"),
        pytest.param(LabeledText("so good", "praise"), "so good", 1 / 2, id="a labeled text"),
        pytest.param(Question(TWENTY, ("yes", "no"), 0), TWENTY, 8 / 10, id="a question"),
        pytest.param(Question("", ("so good", "so well"), 0), "so well", 1 / 2, id="its options"),
        pytest.param(MinimalPair(words(1, 7), words(8, 14)), TWENTY, 0.0, id="never across parts"),
    ],
)
def test_each_part_of_a_document_is_a_text(
    document: tuple[Any, ...], read: str, share: float
) -> None:
    """A sentence, an option or a labeled text is known where it is read alone."""
    assert shared_share([document], [read]) == share
    assert shared_share([document], [document]) == 1.0


def test_one_sequence_in_a_hundred_may_be_shared_and_two_may_not() -> None:
    """The limit is 1%, that included; the message names both texts and what to do."""
    judged = [words(1, 112)]
    assert shared_share(judged, [words(50, 62)]) == 1 / 100

    refuse_overlap(judged, [words(50, 62)], name="probe 'prose'", read_name="the rows")
    with pytest.raises(LeakageError) as refused:
        refuse_overlap(judged, [words(50, 63)], name="probe 'prose'", read_name="the rows")

    assert str(refused.value) == (
        "2.0% of the 13-word sequences of probe 'prose' are in the rows too; at most 1% may be. "
        "What is measured must share nothing with what training reads or decides by: give one of them another text."
    )
    assert refused.value.exit_code == 2


NO_TEST = "The test would choose the checkpoint that it scores: name other validation rows, or none, and data.validation_split holds some out of train."
NO_SCORE = "The score would be that of rows that were learned: name other test rows, or none and data.test_split, which holds some out of train."
NO_CHOICE = "What is learned would choose its own checkpoint: name other validation rows, or none, and data.validation_split holds some out of train."


def _copied(folder: Path) -> None:
    shutil.copy(folder / "test.csv", folder / "copy.csv")


def _shuffled(folder: Path) -> None:
    first, *rows = (folder / "test.csv").read_text(encoding="utf-8").splitlines()
    (folder / "copy.csv").write_text("\n".join([first, *rows[::-1], ""]), encoding="utf-8")


def _converted(folder: Path) -> None:
    with (folder / "test.csv").open(encoding="utf-8", newline="") as file:
        lines = [json.dumps(row) for row in csv.DictReader(file)]
    (folder / "copy.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _linked(folder: Path) -> None:
    (folder / "copy.csv").symlink_to(folder / "test.csv")


def _nothing(folder: Path) -> None:
    """Leave the files as they are."""


@pytest.mark.parametrize("clean", [[], ["drop-leaked"]], ids=["as it is", "drop-leaked"])
@pytest.mark.parametrize(
    ("files", "make", "message"),
    [
        pytest.param(
            {"validation_file": "test.csv"},
            _nothing,
            f"data.validation_file and data.test_file are the same file 'test.csv'. {NO_TEST}",
            id="validation is the test",
        ),
        pytest.param(
            {"test_file": "train.csv"},
            _nothing,
            f"data.train_file and data.test_file are the same file 'train.csv'. {NO_SCORE}",
            id="train is the test",
        ),
        pytest.param(
            {"validation_file": "../data/train.csv"},
            _nothing,
            f"data.train_file and data.validation_file are the same file 'train.csv'. {NO_CHOICE}",
            id="train is validation",
        ),
        pytest.param(
            {"validation_file": "copy.csv"},
            _linked,
            f"data.validation_file and data.test_file are the same file 'test.csv'. {NO_TEST}",
            id="a link",
        ),
        pytest.param(
            {"validation_file": "copy.csv"},
            _copied,
            f"'copy.csv' and 'test.csv', the validation and the test rows, hold the same 24 texts. {NO_TEST}",
            id="a copy",
        ),
        pytest.param(
            {"validation_file": "copy.csv"},
            _shuffled,
            f"'copy.csv' and 'test.csv', the validation and the test rows, hold the same 24 texts. {NO_TEST}",
            id="a copy in another order",
        ),
        pytest.param(
            {"train_file": "copy.jsonl"},
            _converted,
            f"'copy.jsonl' and 'test.csv', the train and the test rows, hold the same 24 texts. {NO_SCORE}",
            id="a copy in another format",
        ),
    ],
)
def test_two_splits_that_are_the_same_rows_are_called_that(
    files: dict[str, str],
    make: Callable[[Path], None],
    message: str,
    clean: list[str],
    tmp_path: Path,
) -> None:
    """Dropping leaked rows would not help, so it is not advised; nothing is trained or written."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = write_splits(sound_splits(), folder, "csv")
    make(folder)
    recipe = write_recipe(folder, {**names, **files, "clean": clean})

    with pytest.raises(LeakageError) as refused:
        peftune.run(recipe, output=tmp_path / "out")
    report = peftune.check(recipe)

    assert str(refused.value) == message
    assert not (tmp_path / "out").exists()
    assert report.exit_code == 2
    assert [(each.code, each.message, each.advice) for each in report.results] == [
        ("leakage", message, "")
    ]


def test_a_split_of_a_data_set_is_not_named_twice(tmp_path: Path) -> None:
    """The same for a data set's splits; whoever accepts leakage may go on."""
    rows = {
        split: datasets.Dataset.from_list(rows)
        for split, rows in sound_splits().items()
        if split != "validation"
    }
    datasets.DatasetDict(rows).save_to_disk(tmp_path / "saved")
    splits: dict[SplitName, str] = {"validation": "test", "test": "test"}
    section = DataSection(dataset_name=str(tmp_path / "saved"), splits=splits)
    tables = read_split_tables(section)

    with pytest.raises(LeakageError) as refused:
        refuse_same_splits(tables, section)

    assert str(refused.value) == (
        f"data.splits.validation and data.splits.test are the same split 'test'. {NO_TEST}"
    )
    refuse_same_splits(tables, section.model_copy(update={"accept_leakage": True}))


@pytest.mark.parametrize(
    ("clean", "held_out", "advice"),
    [
        pytest.param(
            ["drop-leaked"],
            "validation",
            "drop-leaked takes rows out of train alone: remove them from one of the two held-out splits, leave the validation rows out, so that some of train are held out, or set data.accept_leakage: true.",
            id="two held-out splits",
        ),
        pytest.param(
            ["drop-leaked", "strip-html"],
            "train",
            "A later step of data.clean made these texts equal: put drop-leaked last.",
            id="a later step",
        ),
    ],
)
def test_what_the_recipe_does_already_is_not_advised(
    clean: list[str], held_out: str, advice: str, tmp_path: Path
) -> None:
    """The advice leads on, whichever splits share the row."""
    splits = sound_splits()
    splits[held_out][2]["text"] = splits["test"][10]["text"]
    if held_out == "train":
        splits["train"][2]["text"] = f"<b>{splits['train'][2]['text']}</b>"
    files = write_splits(splits, tmp_path, "csv")

    result = peftune.check(write_recipe(tmp_path, {**files, "clean": clean}))["leakage"]

    assert (result.status, result.advice) == ("fail", advice)
    assert result.rows == {held_out: [2], "test": [10]}


@pytest.mark.parametrize(
    ("keys", "columns"),
    [
        pytest.param({}, ("text",), id="one column"),
        pytest.param(
            {"text_column": "text", "text_pair_column": "author"}, ("text", "author"), id="a pair"
        ),
        pytest.param({"template": "{author}: {text}"}, ("text", "author"), id="a template"),
    ],
)
def test_after_drop_leaked_the_check_for_leakage_passes(
    keys: dict[str, Any], columns: tuple[str, ...], tmp_path: Path
) -> None:
    """Whatever counts as equal to the check counts as equal to the cleaning; held-out rows stay."""
    splits = sound_splits()
    ways: list[Callable[[str], str]] = [
        str,
        str.upper,
        lambda text: f"  {text} ",
        lambda text: f"{text} http://a.b/c",
    ]
    for row, write in enumerate(ways):
        copied = {name: splits["test"][row][name] for name in columns}
        splits["train"][row].update({**copied, "text": write(copied["text"])})
    splits["train"][8] = {**splits["train"][8], **{k: splits["validation"][3][k] for k in columns}}
    recipe = write_recipe(
        tmp_path, {**write_splits(splits, tmp_path, "csv"), **keys, "clean": ["drop-leaked"]}
    )

    report = peftune.check(recipe)

    assert report["leakage"].status == "pass"
    assert report.cleaned == (CleaningCount("drop-leaked", "train", 0, 5),)
    task = load_task(read_recipe(recipe).data)
    assert (len(task.train), len(task.validation)) == (55, 24)
    assert task.test is not None
    assert len(task.test) == 24


def test_validation_that_is_held_out_of_train_has_no_leaked_row(tmp_path: Path) -> None:
    """Rows leave before some are held out, so that none of them chooses the checkpoint."""
    splits = sound_splits()
    del splits["validation"]
    for row in range(6):
        splits["train"][row]["text"] = splits["test"][row]["text"]
    files = write_splits(splits, tmp_path, "csv")
    recipe = write_recipe(tmp_path, {**files, "validation_split": 0.5, "clean": ["drop-leaked"]})

    task = load_task(read_recipe(recipe).data)

    assert task.test is not None
    assert len(task.train) + len(task.validation) == 54
    assert set(task.test.texts) & {*task.train.texts, *task.validation.texts} == set()
