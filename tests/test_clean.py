"""Cleaning does what the recipe asks for, counts it, and leaves the files as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import GENERAL, Splits, sound_splits, write_recipe, write_splits

import peftune
from peftune.data.clean import (
    CleaningCount,
    clean,
    clean_tables,
    with_normal_unicode,
)
from peftune.data.html_text import without_html
from peftune.data.split_tables import read_split_tables
from peftune.data.strings import Strings
from peftune.data.task import Task, load_task
from peftune.recipe import read_recipe


def strings(*texts: str) -> Strings:
    """Give texts as a column does."""
    return Strings(texts.__getitem__, np.arange(len(texts)))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("so <b>good</b> to see you", "so good to see you"),
        ("one<br/>two<p>three</p>four", "one two three four"),
        ("salt &amp; pepper &lt;3 &#39;yes&#39;", "salt & pepper <3 'yes'"),
        ("<script>alert(1)</script>after <!-- a note -->all", "after all"),
        ("I <3 you, 2 < 3 & 5 > 4", "I <3 you, 2 < 3 & 5 > 4"),
        ("nothing of the kind", "nothing of the kind"),
        ("if a<b then b>a", "if a<b then b>a"),
        ("see a.b/?x=1&copy=2 by AT&T", "see a.b/?x=1&copy=2 by AT&T"),
        ('<a href="https://a.b">a link</a>', "a link"),
    ],
)
def test_html_is_taken_out_and_signs_stay(text: str, plain: str) -> None:
    """Tags and comments go, entities are spelled out, a heart of two signs is no tag."""
    assert without_html(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("vel\u200bvet\ufeff", "velvet"),
        ("ring\x07 \u202etwice", "ring twice"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("\u00bd and \u2460", "\u00bd and \u2460"),
        ("\U0001f469\u200d\U0001f469\u200d\U0001f466", "\U0001f469\u200d\U0001f469\u200d\U0001f466"),
    ],
    ids=ascii,
)  # fmt: skip
def test_unicode_is_composed_and_unseen_characters_go(text: str, plain: str) -> None:
    """What is seen stays as it is: line ends, fractions, and emoji held together by joiners."""
    assert with_normal_unicode(text) == plain


def test_of_equal_texts_the_first_stays_and_none_where_labels_differ() -> None:
    """Nobody knows which of two labels is right, so neither is learned."""
    texts = {"train": strings("a cat", "A  CAT", "a dog", "a dog", "a bird", "", "")}
    labels = [("x",), ("x",), ("x",), ("y",), ("y",), ("x",), ("y",)]

    with_labels = clean(texts, ["drop-duplicates"], labels=labels)  # type: ignore[arg-type]
    without = clean(texts, ["drop-duplicates"])  # type: ignore[arg-type]

    assert sorted(with_labels.dropped) == [1, 2, 3]
    assert sorted(without.dropped) == [1, 3]
    assert with_labels.counts == (CleaningCount("drop-duplicates", "train", 0, 3),)


def test_leaked_rows_leave_train_and_held_out_rows_stay() -> None:
    """Those of validation, of the test and of a probe; what is held out is never changed."""
    texts = {
        "train": strings("a cat", "a dog", "a bird", f"They say: {GENERAL[0]}"),
        "validation": strings("A Dog!", "a fish", "@ann a bird"),
        "test": strings("a  CAT http://a.b/c"),
    }

    cleaned = clean(texts, ["drop-leaked"], general=GENERAL)  # type: ignore[arg-type]

    assert sorted(cleaned.dropped) == [0, 2, 3]
    assert {split: list(found) for split, found in cleaned.texts.items()} == {
        split: list(found) for split, found in texts.items()
    }


def test_steps_are_done_in_their_order_and_counted() -> None:
    """Texts that become equal by stripping are duplicates only where that came before."""
    texts = {"train": strings("<b>a cat</b>", "a cat", "a dog"), "test": strings("<i>so</i>")}

    late = clean(texts, ["drop-duplicates", "strip-html"])  # type: ignore[arg-type]
    early = clean(texts, ["strip-html", "drop-duplicates"])  # type: ignore[arg-type]

    assert late.dropped == frozenset()
    assert early.dropped == {1}
    assert early.counts == (
        CleaningCount("strip-html", "train", 1, 0),
        CleaningCount("strip-html", "test", 1, 0),
        CleaningCount("drop-duplicates", "train", 0, 1),
    )


def _soiled() -> Splits:
    splits = sound_splits()
    splits["train"][6]["text"] = splits["train"][4]["text"].upper()
    splits["train"][4]["text"] = f"<p>{splits['train'][4]['text']}</p>"
    splits["train"][8]["text"] = splits["test"][2]["text"]
    splits["test"][3]["text"] = f"{splits['test'][3]['text']}\u200b"
    return splits


def _task(folder: Path, steps: list[str]) -> Task:
    files = write_splits(_soiled(), folder, "csv")
    recipe = read_recipe(write_recipe(folder, {**files, "clean": steps}))
    return load_task(recipe.data)


def test_a_cleaned_task_has_the_rows_that_are_left(tmp_path: Path) -> None:
    """Rows keep their ids and order, texts are clean in every split, files are as they were."""
    steps = ["normalize-unicode", "strip-html", "drop-duplicates", "drop-leaked"]
    whole = _task(tmp_path, [])
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}

    task = _task(tmp_path, steps)

    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == before
    kept = [row for row in range(60) if row not in (6, 8)]
    assert list(task.train.ids) == [whole.train.ids[row] for row in kept]
    assert task.train.texts[4] == without_html(whole.train.texts[4])
    assert task.test is not None
    assert whole.test is not None
    assert task.test.texts[3] == whole.test.texts[3].rstrip("\u200b")
    assert len(task.test) == len(whole.test)
    assert task.dropped == {"train": 0, "validation": 0, "test": 0}
    assert task.fingerprint() != whole.fingerprint()


def test_the_checks_look_at_what_is_left_and_report_the_steps(tmp_path: Path) -> None:
    """What cleaning mended is no fault; the report says what each step did, by split."""
    files = write_splits(_soiled(), tmp_path, "csv")
    steps = ["normalize-unicode", "strip-html", "drop-duplicates", "drop-leaked"]

    soiled = peftune.check(write_recipe(tmp_path, files))
    report = peftune.check(write_recipe(tmp_path, {**files, "clean": steps}))

    assert {each.code for each in soiled.results if each.status != "pass"} == {
        "html",
        "leakage",
        "unseen-characters",
        "near-duplicate",
    }
    assert report.status == "pass"
    assert [count for count in report.cleaned if count.changed or count.dropped] == [
        CleaningCount("normalize-unicode", "test", 1, 0),
        CleaningCount("strip-html", "train", 1, 0),
        CleaningCount("drop-duplicates", "train", 0, 1),
        CleaningCount("drop-leaked", "train", 0, 1),
    ]


def test_a_regression_keeps_the_first_of_equal_texts(tmp_path: Path) -> None:
    """Measured numbers differ a little by nature, which is no conflict of labels."""
    splits = sound_splits()
    splits["train"][20]["text"] = splits["train"][2]["text"]
    files = write_splits(splits, tmp_path, "csv")
    recipe = read_recipe(
        write_recipe(
            tmp_path,
            {**files, "clean": ["drop-duplicates"], "label_column": "score"},
            task="regression",
        )
    )

    cleaning = clean_tables(read_split_tables(recipe.data), recipe.data, recipe.task)

    assert cleaning.dropped == {20}
